//! pgBackRest run for real: what it says of a full backup of the lab's primary becomes a metric, on the node beside it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};

use crate::lab::parts::{Lab, Options};
use crate::lab::postgres::Postgres;
use crate::lab::process::{run, run_async};
use crate::lab::{GROUP, HOME, wait};
use crate::scene::{fast, play};

const PGBACKREST: &str = "/usr/bin/pgbackrest";

/// A repository in the lab's folder; the primary need not archive for it.
fn stanza(primary: &Postgres) -> Result<PathBuf> {
    ensure!(Path::new(PGBACKREST).exists(), "{PGBACKREST} is missing: scripts/install");
    // Beside the data, where the server's user may write.
    let repository = primary.data.with_file_name("pgbackrest");
    run(primary.command("/bin/mkdir").arg(&repository))?;
    let (at, file) = (repository.display(), repository.join("pgbackrest.conf"));
    let text = format!(
        "[global]\nrepo1-path={at}/repo\nrepo1-retention-full=1\nlog-path={at}\nlock-path={at}/lock\nspool-path={at}/spool\n\
         log-level-console=warn\nlog-level-file=off\nstart-fast=y\narchive-check=n\n\n\
         [demo]\npg1-path={}\npg1-port={}\npg1-socket-path={}\npg1-user=postgres\n",
        primary.data.display(),
        primary.port,
        primary.sockets.display()
    );
    std::fs::write(&file, text)?;
    Ok(file)
}

async fn pgbackrest(primary: &Postgres, config: &Path, words: &[&str]) -> Result<String> {
    let mut command: Command = primary.command(PGBACKREST);
    command.arg(format!("--config={}", config.display())).arg("--stanza=demo").args(words);
    run_async(command).await
}

/// As its schedule would: written beside, then moved, so that nobody reads half of it.
async fn tell(primary: &Postgres, config: &Path, info: &Path) -> Result<()> {
    let said = pgbackrest(primary, config, &["info", "--output=json"]).await?;
    let new = info.with_extension("new");
    std::fs::write(&new, said)?;
    Ok(std::fs::rename(new, info)?)
}

async fn metric(lab: &Lab, name: &str) -> Result<Option<f64>> {
    let answer = reqwest::get(format!("http://{}/metrics", lab.node("hcmc-1")?.http)).await?.error_for_status()?;
    let wanted = format!("backup_{name}{{group=\"{GROUP}\",region=\"{HOME}\",target=\"backup\"}} ");
    let text = answer.text().await?;
    Ok(text.lines().find_map(|line| line.strip_prefix(&wanted)).map(str::parse).transpose()?)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_that_pgbackrest_made_is_a_metric() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let info = folder.path().join("info.json");
    let target = "[[group.target]]\nname = \"hanoi-db\"".to_owned();
    let backup = format!(
        "[[group.target]]\nname = \"backup\"\nregion = \"{HOME}\"\nkind = \"backup\"\nfile = \"{}\"\nstanza = \"demo\"\n\
         nodes = [\"hcmc-1\"]\ninterval_ms = 1000\nfastinter_ms = 500\n\n{target}",
        info.display()
    );
    play(Options { changes: vec![(target, backup)], ..fast() }, async |lab: &mut Lab| {
        let config = stanza(&lab.primary)?;
        pgbackrest(&lab.primary, &config, &["stanza-create"]).await?;
        tell(&lab.primary, &config, &info).await?;
        wait::until("a stanza without a backup to be told", Duration::from_secs(30), async || {
            ensure!(metric(lab, "is_known").await? == Some(1.0) && metric(lab, "is_ok").await? == Some(0.0));
            ensure!(metric(lab, "last_success_timestamp").await?.is_none(), "there is none");
            Ok(())
        })
        .await?;
        let before = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs_f64().floor();
        pgbackrest(&lab.primary, &config, &["backup", "--type=full"]).await?;
        let after = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs_f64();
        tell(&lab.primary, &config, &info).await?;
        wait::until("the backup to be a metric", Duration::from_secs(30), async || {
            let at = metric(lab, "last_success_timestamp").await?.context("not yet")?;
            ensure!(at >= before && at <= after, "{before} <= {at} <= {after}");
            ensure!(metric(lab, "is_ok").await? == Some(1.0));
            ensure!(metric(lab, "last_size_bytes").await?.is_some_and(|bytes| bytes > 1e6));
            Ok(())
        })
        .await
    })
    .await
}
