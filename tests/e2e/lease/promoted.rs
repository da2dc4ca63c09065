//! A promoted standby gets its gate while it serves already.

use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};
use watchdog::guard::host::boottime_ms;
use watchdog::guard::lease::files;

use super::{at_new_side, guard_files, leased, leased_by_nftables, play_bound};
use crate::lab::parts::{Lab, Options};
use crate::lab::{DR, hub, wait};

/// Who connected to the new primary in its first moments, before it had a gate, keeps that connection when its gate is put in
/// place.
async fn first_clients_stay(options: Options) -> Result<()> {
    play_bound(options, async |lab: &mut Lab| {
        let eager = at_new_side(lab);
        lab.kill_home()?;
        let first = eager.first_from(&lab.standby.address.to_string(), Duration::from_secs(60)).await?;
        let begun = wait::until("the new primary's gate to stand open", Duration::from_secs(30), async || {
            let now = files::now(&guard_files(lab, DR)).map_err(anyhow::Error::msg)?;
            ensure!(now.passes(boottime_ms()), "{}", now.in_words());
            Ok(SystemTime::now())
        })
        .await?;
        wait::until("a row through it", Duration::from_secs(20), async || {
            let row = eager.newest().context("no row")?;
            ensure!(row.at > begun, "{row:?}; {}", eager.last_error());
            Ok(())
        })
        .await?;
        let rows = eager.acknowledged();
        let gaps = rows.windows(2).filter_map(|pair| pair[1].at.duration_since(pair[0].at).ok());
        println!("its gate {:?} after the first row; longest gap {:?}", begun.duration_since(first.at)?, gaps.max());
        ensure!(eager.sessions() == 1, "{} connections; the last ended by {}", eager.sessions(), eager.last_error());
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_primarys_first_clients_are_not_reset_by_its_gate() -> Result<()> {
    first_clients_stay(leased()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_primarys_first_clients_are_not_reset_by_its_table() -> Result<()> {
    let name = "lease::promoted::a_new_primarys_first_clients_are_not_reset_by_its_table";
    hub::alone(name, async || first_clients_stay(leased_by_nftables()).await).await
}
