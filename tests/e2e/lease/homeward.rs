//! There and back in mode `lease`: what the guard starts again is gated as what it replaced.

use anyhow::Result;
use watchdog::proto::{RunKind, RunPhase};

use super::{bound, bound_to, leased, play_bound};
use crate::lab::homeward::{order, until_closed, until_it_follows, until_open};
use crate::lab::parts::Lab;
use crate::lab::{GROUP, HOME};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_lease_is_bound_again_on_each_side_after_a_planned_move() -> Result<()> {
    play_bound(leased(), async |lab: &mut Lab| {
        until_open(lab, "switchover").await?;
        order(lab, &["switchover", GROUP]).await?;
        until_closed(lab, RunKind::Switchover, RunPhase::Succeeded).await?;
        until_it_follows(&lab.primary, &lab.standby).await?;
        bound_to(lab, &format!("db-{HOME}")).await?;

        // The primary of now was started by its guard: as a standby, in the cgroup that is gated.
        until_open(lab, "failback").await?;
        order(lab, &["failback", GROUP]).await?;
        until_closed(lab, RunKind::Failback, RunPhase::Succeeded).await?;
        bound(lab).await
    })
    .await
}
