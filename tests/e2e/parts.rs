//! The lab itself: its parts come up, do their work, and leave nothing behind.

use std::time::Duration;

use crate::lab::client::{Client, Route};
use crate::lab::parts::{Lab, Options, Zone};
use crate::lab::process::carrying_mark;
use crate::lab::{DR, HOME};

/// Kills home and promotes by hand: the client follows, the rows are counted, and no process outlives the lab.
async fn by_hand(zone: Zone) -> anyhow::Result<()> {
    let mut lab = Lab::start(Options { zone, ..Options::default() }).await?;
    let (home, dr) = (lab.primary.address.to_string(), lab.standby.address.to_string());
    assert!(lab.dig()?.ends_with(&home), "the zone points home: {}", lab.dig()?);
    assert_eq!(lab.services[HOME].health().await?.0, 200);
    assert!(lab.standby.in_recovery().await?);

    let through_name = Client::start(Route::Name(lab.dns.server()), lab.primary.port, Duration::from_millis(10));
    through_name.first_from(&home, Duration::from_secs(20)).await?;
    through_name.stop();
    let route = Route::Addresses(vec![home.clone(), dr.clone()]);
    let client = Client::start(route, lab.primary.port, Duration::from_millis(10));
    client.first_from(&home, Duration::from_secs(20)).await?;
    lab.kill_home()?;
    assert!(lab.services[HOME].health().await.is_err(), "the service is gone");
    lab.standby.promote().await?;
    client.first_from(&dr, Duration::from_secs(20)).await?;
    lab.services[DR].start().await?;
    client.stop();
    let balance = client.balance(&lab.standby.row_ids().await?);
    assert!(balance.acknowledged > 0 && lab.standby.timeline().await? == 2, "{balance:?}");

    let mark = lab.folder.path.clone();
    drop(lab);
    assert_eq!(carrying_mark(&mark), Vec::<u32>::new());
    assert!(!mark.exists(), "{} is left", mark.display());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parts_with_bind_come_and_go() -> anyhow::Result<()> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    by_hand(Zone::Bind).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parts_with_route53_come_and_go() -> anyhow::Result<()> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    by_hand(Zone::Route53).await
}
