//! A node's wall clock is an hour off (libfaketime; the monotonic clocks stay true, as they do when somebody sets the time).

use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use watchdog::proto::RunPhase;
use watchdog::proto::admin_client::AdminClient;
use watchdog::proto::{PauseRequest, WriteContext};

use crate::calm::{at_rest, standing};
use crate::lab::nodes::name_at;
use crate::lab::parts::{Lab, Options};
use crate::lab::watch::group;
use crate::lab::{DR, GROUP, HOME, WITNESS, pki, wait};
use crate::scene::{each_effect_once, fast, nothing_happened, play, points_at};

/// What bends the time of a process.
fn bender() -> Option<PathBuf> {
    let folders = std::fs::read_dir("/usr/lib").into_iter().flatten().flatten();
    let libraries = folders.map(|folder| folder.path().join("faketime/libfaketimeMT.so.1"));
    libraries.into_iter().find(|library| library.exists())
}

/// Restarts the node with its clock off by so much, and waits until it says so.
async fn bend(lab: &mut Lab, name: &str, off: &str) -> Result<()> {
    let library = bender().context("libfaketime")?;
    let settings = [
        ("LD_PRELOAD", library.display().to_string()),
        ("FAKETIME", off.to_owned()),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
        ("DONT_FAKE_MONOTONIC", "1".to_owned()),
    ];
    let Lab { nodes, folder, .. } = &mut *lab;
    let node = nodes.iter_mut().find(|node| node.name == name).context("the node")?;
    node.stop()?;
    node.environment = settings.map(|(name, value)| (name.to_owned(), value)).into();
    node.start_again(folder)?;
    wait::until(&format!("{name} to show another time"), Duration::from_secs(30), async || {
        let told = standing(lab.node(name)?).await?.at_ms;
        let told = UNIX_EPOCH + Duration::from_millis(u64::try_from(told)?);
        let now = SystemTime::now();
        let apart = told.duration_since(now).unwrap_or_else(|earlier| earlier.duration());
        ensure!(apart > Duration::from_secs(3000), "its clock is off by {apart:?} only");
        Ok(())
    })
    .await
}

async fn until_leads(lab: &Lab, wanted: impl Fn(&str) -> bool) -> Result<String> {
    wait::until("the right node to lead", Duration::from_secs(60), async || {
        let leader = lab.leader().await?;
        ensure!(wanted(&leader), "{leader:?} leads");
        Ok(leader)
    })
    .await
}

/// Pauses until a moment by the true clock, asked of a node whose clock is right.
async fn pause_for(lab: &Lab, how_long: Duration) -> Result<()> {
    let channel = pki::connect(lab.node(&name_at(HOME))?.listen, Duration::from_secs(10)).await?;
    let mut client = AdminClient::new(channel);
    let until = (SystemTime::now() + how_long).duration_since(UNIX_EPOCH)?;
    let context = WriteContext { request_id: "half-an-hour".into(), by: "lab".into(), reason: "maintenance".into() };
    let until_ms = Some(i64::try_from(until.as_millis())?);
    client.pause(PauseRequest { context: Some(context), group: GROUP.to_owned(), until_ms }).await?;
    Ok(())
}

/// Two of three nodes are left, and their clocks are an hour apart: nobody can tell who is right, so whoever leads expires
/// no pause. With the third it is clear who is off: that node does not lead, and the others replace a dead region, which
/// takes an update of the zone that is signed at the right time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p9_a_leader_an_hour_off_expires_nothing_and_hands_over() -> Result<()> {
    if bender().is_none() {
        println!("skipped: libfaketime is not installed");
        return Ok(());
    }
    play(fast(), async |lab: &mut Lab| {
        let (off, away) = (name_at(WITNESS), name_at(DR));
        pause_for(lab, Duration::from_secs(1800)).await?;
        lab.node_mut(&away)?.kill()?;
        bend(lab, &off, "+1h").await?;
        until_leads(lab, |leader| leader == off).await?;
        // An expiry would be proposed at the first look.
        wait::pause(Duration::from_secs(3)).await;
        let status = lab.status().await?;
        ensure!(group(&status)?.pause.is_some(), "the pause was ended: {:?}", group(&status)?);

        let Lab { nodes, folder, .. } = &mut *lab;
        nodes.iter_mut().find(|node| node.name == away).context("the node")?.start_again(folder)?;
        until_leads(lab, |leader| leader != off && !leader.is_empty()).await?;
        lab.until_ready().await?;
        nothing_happened(lab)?;
        lab.node(&name_at(HOME))?.ctl(&["resume", GROUP, "--reason", "it is done"]).await?;
        lab.kill_home()?;
        let run = lab.until_run(&[RunPhase::Succeeded], Duration::from_secs(90)).await?;
        ensure!(run.claims.last().is_some_and(|claim| claim.node != off), "{off} finished it: {:?}", run.claims);
        points_at(lab, DR)?;
        at_rest(lab, 1).await?;
        each_effect_once(lab)
    })
    .await
}

/// The hold-down is counted by what nodes saw since when, not by what their clocks show: an hour's difference makes no
/// restart within it (12 s here) an end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p1_an_hour_off_a_restart_within_the_hold_down_is_no_end() -> Result<()> {
    if bender().is_none() {
        println!("skipped: libfaketime is not installed");
        return Ok(());
    }
    let changes = vec![("hold_down_ms = 200".to_owned(), "hold_down_ms = 12000".to_owned())];
    play(Options { changes, ..fast() }, async |lab: &mut Lab| {
        lab.node_mut(&name_at(DR))?.kill()?;
        bend(lab, &name_at(WITNESS), "+1h").await?;
        until_leads(lab, |leader| leader == name_at(WITNESS)).await?;
        lab.until_ready().await?;
        lab.kill_home()?;
        let Lab { primary, folder, .. } = &mut *lab;
        primary.start(folder).await?;
        lab.services[HOME].start().await?;
        lab.until_ready().await?;
        ensure!(lab.runs().await?.is_empty(), "a restart was taken for an end: {:?}", lab.runs().await?);
        nothing_happened(lab)
    })
    .await
}
