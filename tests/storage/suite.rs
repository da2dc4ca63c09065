//! openraft's own storage suite on our store.

use openraft::StorageError;
use openraft::testing::log::{StoreBuilder, Suite};
use tempfile::TempDir;
use watchdog::consensus::{StateMachine, Store, TypeConfig};

use crate::support::identity;

struct Builder;

impl StoreBuilder<TypeConfig, Store, StateMachine, TempDir> for Builder {
    async fn build(&self) -> Result<(TempDir, Store, StateMachine), StorageError<TypeConfig>> {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Store::open(folder.path(), &identity(1)).expect("a new store opens");
        let machine = StateMachine::open(store.clone()).await.expect("an empty state");
        Ok((folder, store, machine))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn openraft_storage_suite_passes() {
    Suite::<TypeConfig, Store, StateMachine, Builder, TempDir>::test_all(Builder).await.expect("the suite passes");
}
