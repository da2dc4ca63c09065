//! The status page on an address that others reach: shown over TLS to whoever proves to be a viewer, and to nobody else.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use reqwest::{Certificate, Client, Identity, StatusCode};
use watchdog::clock::unix_now;
use watchdog::domain::identity::Kind;
use watchdog::tls::authority::{Ask, init, issue};

use crate::lab::parts::{Lab, Options};
use crate::lab::{CLUSTER, GROUP, hub, wait};
use crate::scene::{fast, play};

/// A person's certificate and key, as a browser takes them.
fn person(dir: &Path, name: &str) -> Result<Identity> {
    let ask = Ask { kind: Kind::User, name, hosts: &[], days: 1, renew: false };
    let files = issue(dir, &ask, unix_now())?.files;
    let pem = [std::fs::read(files.certificate)?, std::fs::read(files.key)?].concat();
    Ok(Identity::from_pem(&pem)?)
}

/// A browser of its own each: nothing is kept from one to the next.
fn browser(authority: &Path, identity: Option<Identity>) -> Result<Client> {
    let ca = Certificate::from_pem(&std::fs::read(authority.join("ca.pem"))?)?;
    let client = Client::builder().tls_certs_only([ca]).timeout(Duration::from_secs(10));
    Ok(identity.into_iter().fold(client, |client, identity| client.identity(identity)).build()?)
}

async fn seen(browser: &Client, url: &str) -> Result<(StatusCode, String)> {
    let answer = browser.get(url).send().await?;
    Ok((answer.status(), answer.text().await?))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_that_others_reach_is_shown_to_viewers_alone() -> Result<()> {
    // In a hub each node has an address of its own, which is not loopback.
    hub::alone("page_tls::a_page_that_others_reach_is_shown_to_viewers_alone", shown_to_viewers_alone).await
}

async fn shown_to_viewers_alone() -> Result<()> {
    let region = "[[region]]\nname = \"hcmc\"\n".to_owned();
    let role = format!("[[role]]\nidentity = \"watchdog://{CLUSTER}/user/linh\"\nrole = \"viewer\"\n\n{region}");
    play(Options { changes: vec![(region, role)], ..fast() }, async |lab: &mut Lab| {
        let ours = lab.folder.path.join("tls");
        let node = lab.nodes.first().context("a node")?;
        ensure!(!node.page.ip().is_loopback(), "{}", node.page);
        let url = format!("https://{}/?lang=en", node.page);
        // The node's certificate for programs that go by the address; it is taken up while the node runs.
        let hosts = [node.page.ip().to_string()];
        let ask = Ask { kind: Kind::Node, name: &node.name, hosts: &hosts, days: 1, renew: true };
        issue(&ours, &ask, unix_now())?;

        let viewer = browser(&ours, Some(person(&ours, "linh")?))?;
        wait::until("the page to be shown to a viewer", Duration::from_secs(40), async || {
            let (status, html) = seen(&viewer, &url).await?;
            ensure!(status == StatusCode::OK && html.contains(GROUP), "{status}: {html}");
            Ok(())
        })
        .await?;
        // One of the cluster's people without a role, one without a certificate, one who speaks no TLS.
        let (status, html) = seen(&browser(&ours, Some(person(&ours, "nobody")?))?, &url).await?;
        ensure!(status == StatusCode::FORBIDDEN && html.contains("needs viewer"), "{status}: {html}");
        let (status, html) = seen(&browser(&ours, None)?, &url).await?;
        ensure!(status == StatusCode::UNAUTHORIZED && html.contains("watchdogctl cert issue"), "{status}: {html}");
        ensure!(!html.contains(GROUP), "{html}");
        let plain = reqwest::get(url.replace("https", "http")).await;
        ensure!(plain.is_err(), "shown in plain text: {plain:?}");
        // The same name by another authority.
        let theirs = tempfile::tempdir()?;
        init(theirs.path(), CLUSTER, 1, unix_now())?;
        let forged = seen(&browser(&ours, Some(person(theirs.path(), "linh")?))?, &url).await;
        ensure!(forged.is_err(), "another authority's viewer: {forged:?}");
        Ok(())
    })
    .await
}
