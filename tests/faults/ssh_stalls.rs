//! The way to a host hangs before, during and after what is asked of it. What may have happened is read back, and each
//! effect comes once.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use watchdog::proto::RunPhase;

use crate::calm::{at_rest, step_settings, until_told};
use crate::lab::parts::{Lab, Options};
use crate::lab::process::{self, tail};
use crate::lab::trip::{self, Point};
use crate::lab::{DR, wait};
use crate::scene::{each_effect_once, fast, play, points_at};

fn options() -> Options {
    let promote =
        step_settings("promote", "deadline_ms = 3000\nbackoff_ms = 100\nbackoff_max_ms = 500\nmax_attempts = 9");
    let services = step_settings("services", "deadline_ms = 3000\nbackoff_ms = 100");
    Options { trips: true, changes: vec![promote, services], ..fast() }
}

/// The run's end, and what shows that everything came once.
async fn ended_once(lab: &Lab) -> Result<()> {
    lab.until_run(&[RunPhase::Succeeded], Duration::from_secs(60)).await?;
    at_rest(lab, 1).await?;
    ensure!(lab.standby.timeline().await? == 2, "promoted more than once");
    points_at(lab, DR)?;
    each_effect_once(lab)
}

/// sshd's processes that carry a session of `site`: not the one that listens.
fn sessions(lab: &Lab, site: &str) -> Result<Vec<u32>> {
    let listener = lab.hosts.get(site).context("a host there")?.pid()?;
    let is_sshd = |pid: &u32| {
        let program = std::fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
        program.file_name().is_some_and(|name| name.to_string_lossy().starts_with("sshd"))
    };
    let found: Vec<u32> = process::tree(listener).into_iter().filter(|pid| *pid != listener).filter(is_sshd).collect();
    ensure!(!found.is_empty(), "no session is open in {site}");
    Ok(found)
}

fn to_all(pids: &[u32], signal: Signal) {
    pids.iter().for_each(|pid| process::send(*pid, signal));
}

/// Before: the standby's sshd is frozen, sessions and all, once the old primary is fenced. It accepts connections (its
/// kernel does) and says nothing. Nothing is begun there and a person is called; thawed, the run goes on by itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p6_sshd_frozen_before_it_is_asked_to_promote() -> Result<()> {
    play(options(), async |lab: &mut Lab| {
        trip::arm(&lab.folder.path, "fence", Point::After)?;
        lab.kill_home()?;
        trip::reached(&lab.folder.path, "fence", Point::After, Duration::from_secs(30)).await?;
        lab.hosts[DR].freeze();
        trip::release(&lab.folder.path, "fence", Point::After)?;
        let run = lab.until_run(&[RunPhase::Stuck], Duration::from_secs(60)).await?;
        let begun = run.events.iter().any(|event| event.step == "promote" && event.what.contains("started"));
        ensure!(!begun && lab.standby.in_recovery().await?, "begun through a frozen server: {:?}", run.events);
        lab.hosts[DR].thaw();
        ended_once(lab).await
    })
    .await
}

/// The request reached the host and hangs there until long after its deadline: what arrives then is refused, by the guard's
/// own clock or by the token that was raised since.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p3_a_request_that_hung_before_the_guard_promotes_nothing() -> Result<()> {
    play(options(), async |lab: &mut Lab| {
        trip::arm(&lab.folder.path, "promote", Point::Before)?;
        lab.kill_home()?;
        trip::reached(&lab.folder.path, "promote", Point::Before, Duration::from_secs(30)).await?;
        ended_once(lab).await?;
        let log = lab.folder.log(&format!("guard-{DR}"));
        let refusals = |text: &str| {
            let late =
                text.lines().filter(|line| line.starts_with("asked:") && line.contains("\"action\":\"promote\""));
            late.filter(|line| line.contains("refused")).count()
        };
        ensure!(refusals(&std::fs::read_to_string(&log)?) == 0, "refused too early:\n{}", tail(&log));
        trip::release(&lab.folder.path, "promote", Point::Before)?;
        wait::until("the guard to refuse what came late", Duration::from_secs(20), async || {
            let text = std::fs::read_to_string(&log)?;
            ensure!(refusals(&text) == 1, "the guard's log ends with:\n{}", tail(&log));
            Ok(())
        })
        .await?;
        ended_once(lab).await
    })
    .await
}

/// Stops the script that starts the standby region's services in its middle, until the file is there.
fn hold_script(lab: &Lab) -> Result<(PathBuf, PathBuf)> {
    let script = &lab.services[DR].start_script;
    let (begun, go_on) = (lab.folder.path.join("run/services-begun"), lab.folder.path.join("run/services-go-on"));
    let text = std::fs::read_to_string(script)?;
    let hold = format!(
        "#!/bin/sh\necho begun >>{}\nfor _ in $(seq 3000); do [ -e {} ] && break; sleep 0.01; done\n",
        begun.display(),
        go_on.display()
    );
    std::fs::write(script, text.replacen("#!/bin/sh\n", &hold, 1))?;
    Ok((begun, go_on))
}

/// During: the sessions' sshd processes freeze while the guard is at work. The guard goes on by itself; the answer never
/// comes; on a new session it is found done.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p6_sshd_frozen_while_the_guard_is_at_work() -> Result<()> {
    play(options(), async |lab: &mut Lab| {
        let (begun, go_on) = hold_script(lab)?;
        lab.kill_home()?;
        wait::until_true("the services' start to begin", Duration::from_secs(30), async || begun.exists()).await?;
        let frozen = sessions(lab, DR)?;
        process::freeze_all(&frozen);
        std::fs::write(&go_on, "")?;
        until_told(lab, "services", "unknown").await?;
        ended_once(lab).await?;
        let times = std::fs::read_to_string(&begun)?.lines().count();
        ensure!(times == 1, "the services' start was begun {times} times");
        to_all(&frozen, Signal::CONT);
        at_rest(lab, 1).await?;
        each_effect_once(lab)
    })
    .await
}

/// After: promoted, and the sessions' sshd processes freeze with the answer in hand. Nobody asks to promote again: the
/// server is read back on a new session.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p6_sshd_frozen_with_the_answer_in_hand() -> Result<()> {
    play(options(), async |lab: &mut Lab| {
        trip::arm(&lab.folder.path, "promote", Point::After)?;
        lab.kill_home()?;
        trip::reached(&lab.folder.path, "promote", Point::After, Duration::from_secs(30)).await?;
        let frozen = sessions(lab, DR)?;
        process::freeze_all(&frozen);
        trip::release(&lab.folder.path, "promote", Point::After)?;
        ended_once(lab).await?;
        until_told(lab, "promote", "found done").await?;
        to_all(&frozen, Signal::CONT);
        at_rest(lab, 1).await?;
        each_effect_once(lab)
    })
    .await
}
