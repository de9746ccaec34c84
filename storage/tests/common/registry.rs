//! Where a store of a test has its registry.

use vitalseal_storage::{PostgresPlace, RegistryPlace};

/// At the address of a schema on the server, or in a file.
pub(crate) fn place(address: Option<String>) -> RegistryPlace {
    address.map_or(RegistryPlace::File, |address| {
        RegistryPlace::Postgres(PostgresPlace::new(&address, None).unwrap())
    })
}
