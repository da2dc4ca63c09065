//! What is measured: the floor, and runs of the demo.

use std::time::{Duration, SystemTime};

use anyhow::Result;

use super::client::{Client, Route};
use super::folder::Folder;
use super::postgres::Postgres;
use super::{DR, HOME, address_of, wait};

/// Kills the primary and promotes at once by hand: the time to the first insert on the standby's side.
pub async fn floor_once() -> Result<Duration> {
    let mut folder = Folder::create(None)?;
    let port = folder.port(&[address_of(HOME), address_of(DR)])?;
    let mut primary = Postgres::primary(&folder, HOME, port).await?;
    let standby = Postgres::standby(&folder, DR, &primary).await?;
    let (home, dr) = (address_of(HOME).to_string(), address_of(DR).to_string());
    let client = Client::start(Route::Addresses(vec![home.clone(), dr.clone()]), port, Duration::from_millis(10));
    client.first_from(&home, Duration::from_secs(10)).await?;
    wait::pause(Duration::from_secs(1)).await;
    let fault = SystemTime::now();
    primary.kill()?;
    standby.promote().await?;
    let first = client.first_from(&dr, Duration::from_secs(30)).await?;
    client.stop();
    let balance = client.balance(&standby.row_ids().await?);
    println!("{balance:?}, timeline {}", standby.timeline().await?);
    Ok(first.at.duration_since(fault)?)
}

/// The floor, several times.
pub async fn floor(times: u32) -> Result<()> {
    for _ in 0..times {
        let took = floor_once().await?;
        println!("floor: {:.3} s", took.as_secs_f64());
    }
    Ok(())
}
