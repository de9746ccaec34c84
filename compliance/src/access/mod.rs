//! Who somebody is, and whose readings they may see.
//!
//! A login (password and a one-time code) yields a short-lived token; the token is what the SQL door takes as a password.
//! So a person's password is never typed into a notebook or stored in a BI tool, and what is stored there soon ends by itself.
//! Whose readings an identity may see is decided by [`CareTeamPolicy`], asked anew for every query.
//!
//! What rests: argon2id hashes of passwords, sealed TOTP secrets, SHA-256 of tokens. Never a password or a token.

mod credentials;
mod lockout;
mod login;
mod password;
mod policy;
mod token;
mod totp;

#[cfg(test)]
mod tests;

pub use credentials::{AddUserError, NewCredentials, add_user};
pub use login::{Login, LoginError};
pub use policy::CareTeamPolicy;
pub use token::{DEFAULT_TOKEN_LIFETIME, Token, TokenAuthenticator};
