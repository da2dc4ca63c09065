//! The stand-in as the leader of a membership that never changes.

use async_trait::async_trait;
use watchdog::api::backend::ProposeError;
use watchdog::api::nodes::{ChangeNodes, MembershipBackend, Nodes, NodesChanged, Progress, Transfer, Transferred};
use watchdog::domain::command::{Rejection, RejectionCode};

use crate::standin::{Mood, StandInNode};

#[async_trait]
impl MembershipBackend for StandInNode {
    async fn confirm(&self) -> Result<(), ProposeError> {
        Ok(())
    }

    async fn nodes(&self) -> Result<Nodes, ProposeError> {
        Ok(Nodes::default())
    }

    async fn change_nodes(&self, ask: ChangeNodes) -> Result<NodesChanged, ProposeError> {
        if !ask.dry_run && *self.mood.lock().unwrap() == Mood::Hangs {
            std::future::pending::<()>().await;
        }
        if !ask.dry_run {
            let message = "a stand-in's membership never changes".to_owned();
            return Err(ProposeError::Rejected(Rejection { code: RejectionCode::Illegal, message }));
        }
        Ok(NodesChanged {
            progress: Progress::Judged,
            node: "new".to_owned(),
            leaving: String::new(),
            gates: Vec::new(),
            voters_before: Vec::new(),
            voters_after: Vec::new(),
            layout_before: Vec::new(),
            layout_after: Vec::new(),
        })
    }

    async fn transfer(&self, _ask: Transfer) -> Result<Transferred, ProposeError> {
        if *self.mood.lock().unwrap() == Mood::Hangs {
            std::future::pending::<()>().await;
        }
        let name = "danang-1".to_owned();
        Ok(Transferred { leader: name.clone(), from: name, preferred: None, note: String::new() })
    }
}
