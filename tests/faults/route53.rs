//! The zone's provider takes the change, and the answer never comes: whether the record was changed is an open question,
//! answered by reading back, never by assuming and never by changing it twice.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use watchdog::proto::{RunPhase, StepPhase};

use crate::calm::{at_rest, step_settings, until_step, until_told};
use crate::lab::parts::{Dns, Lab, Options, Zone};
use crate::lab::trip::{self, Point};
use crate::lab::{DR, PUBLIC_NAME, address_of};
use crate::scene::{each_effect_once, fast, play, points_at};

fn options() -> Options {
    let dns = step_settings("dns", "deadline_ms = 1500\nbackoff_ms = 100");
    Options { zone: Zone::Route53, trips: true, changes: vec![dns], ..fast() }
}

/// The provider carried out one change of the record, and the token beside it is the newest that was issued for the zone.
async fn changed_once(lab: &Lab, token: &str) -> Result<()> {
    let exchanges = lab.dns_door.as_ref().context("a door before the API")?.exchanges();
    let name = PUBLIC_NAME.trim_end_matches('.');
    let there = address_of(DR).to_string();
    let changes = exchanges.iter().filter(|it| it.asks_for(name) && it.asks_for(&there));
    let accepted = changes.clone().filter(|it| it.was_accepted()).count();
    ensure!(accepted == 1, "the record was changed {accepted} times, asked for {} times", changes.count());
    let zone = lab.zone_token().await?;
    ensure!(zone.contains(token), "the zone holds {zone}, the newest token is {token}");
    points_at(lab, DR)
}

fn newest_token(run: &watchdog::proto::Run) -> String {
    run.claims.last().map(|claim| claim.token.clone()).unwrap_or_default()
}

/// Changed, and the answer is lost: found done under the token that changed it, and nothing is sent again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p6_route53_changed_and_its_answer_lost() -> Result<()> {
    play(options(), async |lab: &mut Lab| {
        trip::arm(&lab.folder.path, "dns", Point::After)?;
        lab.kill_home()?;
        trip::reached(&lab.folder.path, "dns", Point::After, Duration::from_secs(30)).await?;
        // The answer stays held: only reading back can bring the run to its end.
        let run = lab.until_run(&[RunPhase::Succeeded], Duration::from_secs(60)).await?;
        until_told(lab, "dns", "found done").await?;
        each_effect_once(lab)?;
        changed_once(lab, &newest_token(&run)).await?;
        trip::release(&lab.folder.path, "dns", Point::After)?;
        at_rest(lab, 1).await
    })
    .await
}

/// Frozen with the request in hand. Promotion and services do not wait for it. Thawed, it meets both the old request and
/// those that ask what became of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p6_route53_frozen_with_the_batch_in_hand() -> Result<()> {
    play(options(), async |lab: &mut Lab| {
        trip::arm(&lab.folder.path, "dns", Point::Before)?;
        lab.kill_home()?;
        trip::reached(&lab.folder.path, "dns", Point::Before, Duration::from_secs(30)).await?;
        let Dns::Route53(api) = &lab.dns else { anyhow::bail!("the zone is not at Route 53") };
        api.freeze();
        trip::release(&lab.folder.path, "dns", Point::Before)?;
        until_step(lab, "dns", &[StepPhase::Unknown]).await?;
        let run = until_step(lab, "services", &[StepPhase::Done]).await?;
        let dns = run.steps.iter().find(|step| step.id == "dns").map(|step| step.phase);
        ensure!(dns == Some(StepPhase::Unknown.into()), "what nobody answered is not called anything else: {dns:?}");

        let Dns::Route53(api) = &lab.dns else { anyhow::bail!("the zone is not at Route 53") };
        api.thaw();
        let run = lab.until_run(&[RunPhase::Succeeded], Duration::from_secs(60)).await?;
        each_effect_once(lab)?;
        at_rest(lab, 1).await?;
        changed_once(lab, &newest_token(&run)).await
    })
    .await
}

/// Held on its way for longer than its deadline, and let go when the run has gone on: it comes too late, and is refused by
/// the token beside the record.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p3_a_batch_that_arrives_late_changes_nothing() -> Result<()> {
    play(options(), async |lab: &mut Lab| {
        trip::arm(&lab.folder.path, "dns", Point::Before)?;
        lab.kill_home()?;
        trip::reached(&lab.folder.path, "dns", Point::Before, Duration::from_secs(30)).await?;
        let run = lab.until_run(&[RunPhase::Succeeded], Duration::from_secs(60)).await?;
        ensure!(run.claims.len() >= 2, "kept out by an equal token: {:?}", run.claims);
        let before = lab.dns_door.as_ref().context("a door")?.exchanges().len();
        trip::release(&lab.folder.path, "dns", Point::Before)?;
        let refused = crate::lab::wait::until("the provider to answer it", Duration::from_secs(20), async || {
            let exchanges = lab.dns_door.as_ref().context("a door")?.exchanges();
            exchanges.get(before).cloned().context("not yet")
        });
        ensure!(!refused.await?.was_accepted(), "the late batch was carried out");
        each_effect_once(lab)?;
        changed_once(lab, &newest_token(&run)).await?;
        at_rest(lab, 1).await
    })
    .await
}
