//! Where the registry is, and how a connection to another machine has to be secured.
//!
//! No `Debug`, `Display` or error here shows a password.

use std::fmt;
use std::net::IpAddr;

use url::Url;

/// Where the registry is.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub enum RegistryPlace {
    /// `registry.sqlite` in the data directory.
    #[default]
    File,
    /// A PostgreSQL server.
    Postgres(PostgresPlace),
}

/// A database on a PostgreSQL server: its address, and the password if it takes one.
#[derive(Clone, PartialEq, Eq)]
pub struct PostgresPlace(Url);

/// An address was refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PlaceError {
    /// Not an address.
    #[error("the address of the registry is none; write postgres://USER@HOST/DATABASE")]
    Unreadable(#[source] url::ParseError),
    /// Something is missing, or is of no use.
    #[error("{0}; write postgres://USER@HOST/DATABASE")]
    Incomplete(&'static str),
    /// A parameter that this program does not hand on.
    #[error(
        "the address of the registry has a parameter {0} that is not known here; known are sslmode, sslrootcert, \
         sslcert, sslkey and options"
    )]
    Parameter(String),
    /// Whoever is on the line could read and change every wrapped key.
    #[error(
        "the registry at {host} is on another machine, and sslmode={found} does not prove that it is the right one: \
         write sslmode=verify-full, with sslrootcert=FILE if its authority is your own"
    )]
    Insecure {
        /// The server.
        host: String,
        /// What the address asks for.
        found: String,
    },
}

/// Parameters that are handed on. Others are refused: the driver would ignore them, and log their values.
const PARAMETERS: [&str; 5] = ["sslmode", "sslrootcert", "sslcert", "sslkey", "options"];

impl PostgresPlace {
    /// The database at this address, `postgres://USER@HOST[:PORT]/DATABASE[?…]`. HOST may be the directory of a Unix
    /// socket, with `%2F` for each `/`. Parameters as of libpq, those that [`PlaceError::Parameter`] names;
    /// `options[search_path]=SCHEMA` chooses a schema.
    ///
    /// # Errors
    /// When it is no such address, holds a password (configurations are backed up), or goes to another machine without
    /// `sslmode=verify-full`.
    pub fn new(address: &str, password: Option<&str>) -> Result<Self, PlaceError> {
        let mut url = Url::parse(address).map_err(PlaceError::Unreadable)?;
        if !matches!(url.scheme(), "postgres" | "postgresql") {
            return Err(PlaceError::Incomplete(
                "the address of the registry is not one of PostgreSQL",
            ));
        }
        if url.password().is_some() {
            return Err(PlaceError::Incomplete(
                "the address of the registry holds a password; put it into password_file",
            ));
        }
        // The driver would ask the environment for what is missing: who started the server must not choose its registry.
        if url.username().is_empty() || url.path().trim_matches('/').is_empty() {
            return Err(PlaceError::Incomplete(
                "the address of the registry names no user or no database",
            ));
        }
        let host = url.host_str().map(|host| host.replace("%2F", "/"));
        let host = host.ok_or(PlaceError::Incomplete(
            "the address of the registry names no host",
        ))?;
        let mut mode = None;
        for (key, value) in url.query_pairs() {
            if key == "sslmode" {
                mode = Some(value.into_owned());
            } else if !PARAMETERS.contains(&&*key) && !key.starts_with("options[") {
                return Err(PlaceError::Parameter(key.into_owned()));
            }
        }
        match mode {
            Some(found) if found != "verify-full" && !is_here(&host) => {
                return Err(PlaceError::Insecure { host, found });
            }
            Some(_) => {}
            None => {
                let mode = if is_here(&host) {
                    "prefer"
                } else {
                    "verify-full"
                };
                url.query_pairs_mut().append_pair("sslmode", mode);
            }
        }
        url.query_pairs_mut()
            .append_pair("application_name", "vitalseal");
        if url.set_password(password).is_err() {
            return Err(PlaceError::Incomplete(
                "the address of the registry takes no password",
            ));
        }
        Ok(Self(url))
    }

    /// With the password, for the driver alone.
    pub(super) fn url(&self) -> &Url {
        &self.0
    }
}

/// Whether a connection to this host stays on the machine.
fn is_here(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host.starts_with('/')
        || host == "localhost"
        || bare.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

impl fmt::Display for PostgresPlace {
    /// Without password and parameters.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (user, host) = (self.0.username(), self.0.host_str().unwrap_or_default());
        write!(f, "postgres://{user}@{host}")?;
        if let Some(port) = self.0.port() {
            write!(f, ":{port}")?;
        }
        f.write_str(self.0.path())
    }
}

impl fmt::Debug for PostgresPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registry_on_another_machine_is_reached_with_proof_or_not_at_all() {
        let mode = |address: &str| {
            let place = PostgresPlace::new(address, None)?;
            let pairs = place.url().query_pairs();
            let modes: Vec<_> = pairs.filter(|(key, _)| key == "sslmode").collect();
            Ok::<_, PlaceError>(
                modes
                    .iter()
                    .map(|(_, mode)| mode.to_string())
                    .collect::<Vec<_>>(),
            )
        };
        let is =
            |address, expected: &str| assert_eq!(mode(address).unwrap(), [expected], "{address}");
        is("postgres://vs@db.example/vs", "verify-full");
        is(
            "postgres://vs@192.0.2.7:5433/vs?sslmode=verify-full",
            "verify-full",
        );
        is("postgres://vs@127.0.0.1/vs", "prefer");
        is("postgres://vs@localhost/vs?sslmode=disable", "disable");
        is("postgres://vs@%2Frun%2Fpostgresql/vs", "prefer");
        for refused in [
            "postgres://vs@db.example/vs?sslmode=require",
            "postgres://vs@db.example/vs?sslmode=prefer",
            "postgres://vs@localhost.example/vs?sslmode=disable",
        ] {
            assert!(
                matches!(mode(refused), Err(PlaceError::Insecure { .. })),
                "{refused}"
            );
        }
        for refused in [
            "mysql://vs@localhost/vs",
            "postgres://localhost/vs",
            "postgres://vs@localhost/",
            "postgres:///vs?user=vs",
            "postgres://vs@localhost/vs?hostaddr=192.0.2.7",
            "postgres://vs@localhost/vs?host=db.example",
            "registry",
        ] {
            assert!(mode(refused).is_err(), "{refused}");
        }
    }

    #[test]
    fn no_text_shows_a_password() {
        let place =
            PostgresPlace::new("postgres://vs@db.example:5433/vs", Some("s3:c/r@t")).unwrap();
        assert_eq!(place.to_string(), "postgres://vs@db.example:5433/vs");
        let shown = format!("{:?}", RegistryPlace::Postgres(place.clone()));
        assert_eq!(shown, "Postgres(postgres://vs@db.example:5433/vs)");
        assert!(
            place.url().password().is_some_and(|p| p != "s3:c/r@t"),
            "encoded"
        );
        for address in [
            "postgres://vs:s3cret@db.example/vs",
            "postgres://vs@db.example/vs?password=s3cret",
            "postgres://vs@db.example/vs?pasword=s3cret",
            "s3cret://",
        ] {
            let refused = PostgresPlace::new(address, None).unwrap_err();
            let shown = format!("{refused:?} {refused}");
            assert!(!shown.contains("s3cret"), "{shown}");
        }
    }
}
