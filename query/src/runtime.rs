//! What every query runs on: bounded memory, no disk, and no object store but an empty one.

use std::sync::Arc;

use datafusion::datasource::object_store::ObjectStoreUrl;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::FairSpillPool;
use datafusion::execution::object_store::ObjectStoreRegistry;
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use datafusion::object_store::ObjectStore;
use datafusion::object_store::memory::InMemory;
use url::Url;

/// The name under which plans speak of the store's files. Nothing is behind it: files are read by the readers of the
/// store, which a scan hands to the engine, and by name alone nothing can be reached.
const PARQUET_URL: &str = "vitalseal://parquet/";

/// The address of the store's files inside a plan.
///
/// # Errors
/// Never in practice: the text is a constant.
pub(crate) fn parquet_url() -> Result<ObjectStoreUrl> {
    ObjectStoreUrl::parse(PARQUET_URL)
}

/// Builds the environment that all sessions share. It holds nobody's data, and no file: a memory budget.
///
/// # Errors
/// When DataFusion refuses the settings.
pub(crate) fn environment(memory_bytes: usize) -> Result<Arc<RuntimeEnv>> {
    RuntimeEnvBuilder::new()
        .with_memory_pool(Arc::new(FairSpillPool::new(memory_bytes)))
        .with_disk_manager_builder(
            DiskManagerBuilder::default().with_mode(DiskManagerMode::Disabled),
        )
        .with_object_store_registry(Arc::new(Nothing::default()))
        .build_arc()
}

/// A registry with one entry, an empty store. The default one also serves `file://`, and a plan must not.
#[derive(Debug, Default)]
struct Nothing(Arc<InMemory>);

impl ObjectStoreRegistry for Nothing {
    /// Takes nothing: the set of stores is fixed.
    fn register_store(
        &self,
        _url: &Url,
        _store: Arc<dyn ObjectStore>,
    ) -> Option<Arc<dyn ObjectStore>> {
        None
    }

    fn get_store(&self, url: &Url) -> Result<Arc<dyn ObjectStore>> {
        if url.scheme() == "vitalseal" && url.host_str() == Some("parquet") {
            let empty: Arc<dyn ObjectStore> = Arc::<InMemory>::clone(&self.0);
            Ok(empty)
        } else {
            Err(DataFusionError::Plan("no such object store".to_owned()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neither_disk_nor_file_system_is_reachable() {
        let environment = environment(1 << 20).unwrap();
        assert!(!environment.disk_manager.tmp_files_enabled());
        let file = Url::parse("file:///etc/passwd").unwrap();
        environment.register_object_store(&file, Arc::new(InMemory::new()));
        let file = ObjectStoreUrl::parse("file:///").unwrap();
        assert!(environment.object_store(file).is_err());
        assert!(environment.object_store(parquet_url().unwrap()).is_ok());
    }
}
