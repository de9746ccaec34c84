//! The whole system from outside: the real binary, real clients, real files.

#[path = "../common/mod.rs"]
mod common;

mod command_line;
mod crash;
mod demo;
mod interop;
mod secrecy;
