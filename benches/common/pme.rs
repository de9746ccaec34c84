//! Plaintext Parquet under Parquet Modular Encryption and nothing else: the footer and every column under one key.
//!
//! DataFusion reads it through a reader whose metadata, decrypted once, carries the decryptor: as fast as it can be.

use std::fmt;
use std::fs::File;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::DFSchema;
use datafusion::datasource::TableType;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::memory::DataSourceExec;
use datafusion::datasource::object_store::ObjectStoreUrl;
use datafusion::datasource::physical_plan::parquet::ParquetFileReaderFactory;
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfigBuilder, ParquetSource};
use datafusion::error::Result;
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown};
use datafusion::object_store::local::LocalFileSystem;
use datafusion::object_store::{ObjectStore, ObjectStoreExt as _};
use datafusion::parquet::arrow::arrow_reader::ArrowReaderOptions;
use datafusion::parquet::arrow::async_reader::AsyncFileReader;
use datafusion::parquet::encryption::decrypt::FileDecryptionProperties;
use datafusion::parquet::errors::ParquetError;
use datafusion::parquet::file::metadata::{
    PageIndexPolicy, ParquetMetaData, ParquetMetaDataReader,
};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::metrics::ExecutionPlanMetricsSet;
use futures::FutureExt as _;
use futures::future::BoxFuture;

use crate::plaintext;

/// 128 bits, which is what parquet's writer takes; a bench keeps no secret.
pub const KEY: [u8; 16] = [7; 16];

/// The file as a table.
#[derive(Debug)]
pub struct Encrypted {
    readers: Arc<Readers>,
    path: String,
    size: u64,
}

impl Encrypted {
    pub fn open(path: &Path) -> Self {
        let key = FileDecryptionProperties::builder(KEY.to_vec());
        let metadata = ParquetMetaDataReader::new()
            .with_page_index_policy(PageIndexPolicy::Required)
            .with_decryption_properties(Some(key.build().unwrap()))
            .parse_and_finish(&File::open(path).unwrap())
            .unwrap();
        Self {
            readers: Arc::new(Readers {
                store: Arc::new(LocalFileSystem::new()),
                metadata: Arc::new(metadata),
            }),
            path: path.to_str().unwrap().to_owned(),
            size: plaintext::size(path),
        }
    }
}

#[async_trait]
impl TableProvider for Encrypted {
    fn schema(&self) -> SchemaRef {
        plaintext::schema()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(
        &self,
        filters: &[&Expr],
    ) -> Result<Vec<TableProviderFilterPushDown>> {
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }

    async fn scan(
        &self,
        session: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let options = &session.config().options().execution.parquet;
        let mut source = ParquetSource::new(self.schema())
            .with_pushdown_filters(options.pushdown_filters)
            .with_parquet_file_reader_factory(Arc::clone(&self.readers) as _);
        if let Some(filter) = conjunction(filters.to_vec()) {
            let schema = DFSchema::try_from(self.schema())?;
            source = source.with_predicate(session.create_physical_expr(filter, &schema)?);
        }
        // One range of bytes a partition, as a listing table splits a file.
        let partitions = session.config().target_partitions() as u64;
        let part = |number: u64| {
            let at = |number| (self.size * number / partitions) as i64;
            let file = PartitionedFile::new(&self.path, self.size);
            FileGroup::new(vec![file.with_range(at(number), at(number + 1))])
        };
        let url = ObjectStoreUrl::parse("file:///")?;
        let config = FileScanConfigBuilder::new(url, Arc::new(source))
            .with_file_groups((0..partitions).map(part).collect())
            .with_projection_indices(projection.cloned())?
            .with_limit(limit)
            .build();
        Ok(DataSourceExec::from_data_source(config))
    }
}

struct Readers {
    store: Arc<dyn ObjectStore>,
    metadata: Arc<ParquetMetaData>,
}

impl fmt::Debug for Readers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Readers").finish_non_exhaustive()
    }
}

impl ParquetFileReaderFactory for Readers {
    fn create_reader(
        &self,
        _: usize,
        file: PartitionedFile,
        _: Option<usize>,
        _: &ExecutionPlanMetricsSet,
    ) -> Result<Box<dyn AsyncFileReader + Send>> {
        Ok(Box::new(Reader {
            store: Arc::clone(&self.store),
            metadata: Arc::clone(&self.metadata),
            file,
        }))
    }
}

struct Reader {
    store: Arc<dyn ObjectStore>,
    metadata: Arc<ParquetMetaData>,
    file: PartitionedFile,
}

impl AsyncFileReader for Reader {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, Result<Bytes, ParquetError>> {
        async move {
            let read = self.store.get_range(&self.file.object_meta.location, range);
            read.await
                .map_err(|error| ParquetError::External(Box::new(error)))
        }
        .boxed()
    }

    fn get_byte_ranges(
        &mut self,
        ranges: Vec<Range<u64>>,
    ) -> BoxFuture<'_, Result<Vec<Bytes>, ParquetError>> {
        async move {
            let read = self
                .store
                .get_ranges(&self.file.object_meta.location, &ranges);
            read.await
                .map_err(|error| ParquetError::External(Box::new(error)))
        }
        .boxed()
    }

    fn get_metadata<'a>(
        &'a mut self,
        _: Option<&'a ArrowReaderOptions>,
    ) -> BoxFuture<'a, Result<Arc<ParquetMetaData>, ParquetError>> {
        let metadata = Arc::clone(&self.metadata);
        async move { Ok(metadata) }.boxed()
    }
}
