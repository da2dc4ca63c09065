//! The nodes' configuration for a lab: the demo's sample with this lab's addresses.

use std::fmt::Write;

use anyhow::{Result, ensure};

use super::nodes::{Site, name_at};
use super::parts::{Dns, Lab, Pace};
use super::pki;
use super::postgres::DATABASE;
use super::ssh::login;
use super::{CLUSTER, DR, GROUP, HOME, PUBLIC_NAME, WITNESS, ZONE, address_of, dns};

/// The whole file.
pub fn nodes(lab: &Lab, sites: &[Site]) -> Result<String> {
    let mut text = format!(
        "[cluster]\nname = \"{CLUSTER}\"\nepoch = 1\n\n{}{}",
        pki::config(&lab.folder),
        timing(lab.options.pace)
    );
    for site in [HOME, DR, WITNESS] {
        let witness = if site == WITNESS { "witness = true\n" } else { "" };
        write!(text, "[[region]]\nname = \"{site}\"\n{witness}\n")?;
    }
    for (id, site) in (1..).zip(sites) {
        let name = name_at(site.name);
        let data = lab.folder.path.join("nodes").join(&name);
        write!(
            text,
            "[[node]]\nid = {id}\nname = \"{name}\"\nregion = \"{}\"\nlisten = \"{}\"\naddress = \"{}\"\nhttp = \"{}\"\n\
             page = \"{}\"\ndata_dir = \"{}\"\n\n",
            site.name,
            site.listen,
            site.dialled,
            site.http,
            site.page,
            data.display()
        )?;
    }
    text += &outside(lab)?;
    text += &group(lab);
    if lab.options.lease {
        let lease = format!("fencing = \"lease\"\nlease_ttl_ms = {}", super::lease::ttl_ms(&lab.options));
        text = text.replace("fencing = \"confirm\"", &lease).replace("expect_role =", "canary = true\nexpect_role =");
    }
    if lab.options.redis {
        text = with_redis(lab, text)?;
    }
    if lab.options.drill_checks {
        text += &drill_checks(lab);
    }
    for (old, new) in &lab.options.changes {
        ensure!(text.contains(old.as_str()), "the nodes' configuration has no {old:?}");
        text = text.replace(old, new);
    }
    Ok(text)
}

/// A Redis server in each region, which moves with the group and is written to afterwards.
fn with_redis(lab: &Lab, mut text: String) -> Result<String> {
    let mut password = None;
    for (site, other) in [(HOME, DR), (DR, HOME)] {
        let (own, primary) = (&lab.redis[site], &lab.redis[other]);
        let host = format!("database_host = \"db-{site}\"\n");
        let with = format!("{host}redis_host = \"db-{site}\"\nredis = \"{site}-redis\"\n");
        text = text.replacen(&host, &with, 1);
        let secret = lab.folder.write_secret("etc/redis.password", "secret\n")?;
        let secret = password.insert(secret).display();
        write!(
            text,
            "\n[[group.target]]\nname = \"{site}-redis\"\nregion = \"{site}\"\nkind = \"redis\"\naddress = \"{}\"\n\
             password_file = \"{secret}\"\nprimary = \"{}\"\n\n\
             [[group.verify]]\nregion = \"{site}\"\nkind = \"redis_writable\"\naddress = \"{}\"\n\
             password_file = \"{secret}\"\n",
            own.address(),
            primary.address(),
            own.address()
        )?;
    }
    Ok(text)
}

/// What must work in the DR region while it serves.
fn drill_checks(lab: &Lab) -> String {
    format!(
        "\n[[group.drill_check]]\nname = \"front\"\nregion = \"{DR}\"\nkind = \"http\"\nurl = \"http://{}/health\"\n\n\
         [[group.drill_check]]\nname = \"rows\"\nregion = \"{DR}\"\nkind = \"sql\"\nconninfo = \"{}\"\n\
         query = \"select not pg_is_in_recovery() and to_regclass('rows') is not null\"\nexpect = \"t\"\n",
        lab.services[DR].listen,
        lab.standby.conninfo("watchdog", DATABASE)
    )
}

fn timing(pace: Pace) -> &'static str {
    match pace {
        Pace::Default => "",
        Pace::Fast => {
            "[timing]\nreport_interval_ms = 500\n\n\
             [probe_defaults]\ninterval_ms = 200\nfastinter_ms = 50\ntimeout_ms = 500\nfall = 2\nrise = 2\n\n"
        }
    }
}

/// References, receivers, hosts and the zone.
fn outside(lab: &Lab) -> Result<String> {
    let routing_key = lab.folder.write_secret("etc/pagerduty.key", "0123456789abcdef0123456789abcdef\n")?;
    let signing = lab.folder.write_secret("etc/webhook.secret", "a secret of the lab\n")?;
    let receivers = lab.receivers.listen;
    let mut text = format!(
        "[[reference]]\nname = \"name-server\"\nkind = \"tcp\"\naddress = \"{}\"\n\n\
         [[receiver]]\nname = \"oncall\"\nkind = \"pagerduty\"\nbase_url = \"http://{receivers}\"\nrouting_key_file = \"{}\"\n\n\
         [[receiver]]\nname = \"chat\"\nkind = \"webhook\"\nurl = \"http://{receivers}/pages\"\nsecret_file = \"{}\"\n\n",
        lab.receivers.listen,
        routing_key.display(),
        signing.display(),
    );
    for (site, host) in &lab.hosts {
        write!(
            text,
            "[[host]]\nname = \"db-{site}\"\nregion = \"{site}\"\nssh = \"{}\"\nuser = \"{}\"\nhost_key = \"{}\"\n\
             identity_file = \"{}\"\n\n",
            host.listen,
            login(),
            host.host_key,
            lab.key.file.display()
        )?;
    }
    let door = lab.dns_door.as_ref().map(|door| door.listen);
    match &lab.dns {
        Dns::Bind(bind) => {
            let key = lab.folder.write_secret("etc/tsig.key", &format!("{}\n", bind.secret))?;
            write!(
                text,
                "[[dns]]\nname = \"zone\"\nkind = \"rfc2136\"\nserver = \"{}\"\nzone = \"{ZONE}\"\nkey_name = \"{}\"\n\
                 key_file = \"{}\"\n\n",
                door.unwrap_or(bind.server),
                dns::KEY,
                key.display()
            )?;
        }
        Dns::Route53(route53) => write!(
            text,
            "[[dns]]\nname = \"zone\"\nkind = \"route53\"\nhosted_zone_id = \"{}\"\nendpoint_url = \"{}\"\n\
             credentials_file = \"{}\"\n\n",
            route53.hosted_zone_id,
            door.map_or_else(|| route53.endpoint_url.clone(), |door| format!("http://{door}")),
            route53.credentials_file.display()
        )?,
    }
    Ok(text)
}

fn group(lab: &Lab) -> String {
    let hold_down_ms = match lab.options.pace {
        Pace::Default => 3000,
        Pace::Fast => 200,
    };
    let mut text = format!(
        "[[group]]\nname = \"{GROUP}\"\nhome = \"{HOME}\"\nfencing = \"confirm\"\nhold_down_ms = {hold_down_ms}\n\
         cooldown_s = 3600\nrpo_limit_s = 900\nrto_objective_s = 3600\nfence_patience_s = 10\n\n"
    );
    for (site, triggers) in [(HOME, "\"hcmc-db\", \"hcmc-api\""), (DR, "\"hanoi-db\"")] {
        text += &format!(
            "[[group.region]]\nname = \"{site}\"\ntrigger = {{ targets = [{triggers}], need = \"all\" }}\n\
             database_host = \"db-{site}\"\nservices = [{{ host = \"db-{site}\", action = \"start-services\" }}]\n\
             replication = \"{site}-replication\"\n\n"
        );
    }
    for site in [HOME, DR] {
        text += &format!(
            "[[group.service]]\nname = \"api\"\nregion = \"{site}\"\nhost = \"db-{site}\"\nactions = [\"restart\"]\n\
             health_url = \"http://{}/health\"\n\n",
            lab.services[site].listen
        );
    }
    let conninfo = |server: &super::postgres::Postgres| server.conninfo("watchdog", DATABASE);
    let (home, dr) = (conninfo(&lab.primary), conninfo(&lab.standby));
    let server = lab.dns.server();
    text += &format!(
        "[[group.target]]\nname = \"hcmc-api\"\nregion = \"{HOME}\"\nkind = \"http\"\nurl = \"http://{}/health\"\n\n\
         [[group.target]]\nname = \"hcmc-db\"\nregion = \"{HOME}\"\nkind = \"postgres\"\nconninfo = \"{home}\"\n\
         expect_role = \"primary\"\n\n\
         [[group.target]]\nname = \"hanoi-db\"\nregion = \"{DR}\"\nkind = \"postgres\"\nconninfo = \"{dr}\"\n\
         expect_role = \"any\"\n\n\
         [[group.target]]\nname = \"{DR}-replication\"\nregion = \"{DR}\"\nkind = \"replication\"\nprimary = \"{home}\"\n\
         standby = \"{dr}\"\n\n\
         [[group.target]]\nname = \"{HOME}-replication\"\nregion = \"{HOME}\"\nkind = \"replication\"\nprimary = \"{dr}\"\n\
         standby = \"{home}\"\n\n\
         [[group.target]]\nname = \"public-name\"\nregion = \"{HOME}\"\nkind = \"dns\"\nserver = \"{server}\"\n\
         record_name = \"{PUBLIC_NAME}\"\nrecord_type = \"A\"\n\n\
         [[group.record]]\ndns = \"zone\"\nname = \"{PUBLIC_NAME}\"\ntype = \"A\"\nttl_s = 300\n\
         values = {{ {HOME} = \"{}\", {DR} = \"{}\" }}\n\n",
        lab.services[HOME].listen,
        address_of(HOME),
        address_of(DR)
    );
    text + &verification(lab, &home, &dr)
}

/// What must hold on the other side before the run counts as succeeded.
fn verification(lab: &Lab, home: &str, dr: &str) -> String {
    let mut text = String::new();
    let server = lab.dns.server();
    for (site, conninfo) in [(HOME, home), (DR, dr)] {
        let port = lab.services[site].listen.port();
        let host = PUBLIC_NAME.trim_end_matches('.');
        text += &format!(
            "[[group.verify]]\nregion = \"{site}\"\nkind = \"database_writable\"\nconninfo = \"{conninfo}\"\n\n\
             [[group.verify]]\nregion = \"{site}\"\nkind = \"http\"\nurl = \"http://{host}:{port}/health\"\n\
             resolve_at = \"{server}\"\n\n\
             [[group.verify]]\nregion = \"{site}\"\nkind = \"dns_answers\"\nserver = \"{server}\"\n\n"
        );
    }
    text + "[[group.step]]\nid = \"verify\"\ndeadline_s = 10\nmax_attempts = 30\nbackoff_ms = 50\nbackoff_max_ms = 1000\n"
}
