//! Configurations: the cluster's and the guard's.

use std::fs;
use std::path::Path;

use watchdog::config::{judge, render};
use watchdog::guard::config as guard;

use crate::corpus;
use crate::meter::measured;
use crate::runner::{Target, Trial, holds, printable};

/// What a report of any bytes must be: sound or told, precise, and safe to print.
fn judged(bytes: &[u8]) -> Result<(), String> {
    let (config, report) = judge(bytes);
    holds(config.is_some() == report.passes(), || "neither a configuration nor an error, or both".to_owned())?;
    let lines = bytes.iter().filter(|byte| **byte == b'\n').count() + 1;
    for fault in report.errors.iter().chain(&report.warnings) {
        holds(!fault.what.is_empty() && !fault.todo.is_empty(), || format!("says nothing: {fault}"))?;
        holds(fault.line.is_none_or(|line| (1..=lines).contains(&line)), || format!("of {lines} lines: {fault}"))?;
    }
    printable(&render(&report, "watchdog.toml"))?;
    let Some(config) = config else { return Ok(()) };
    holds(judge(bytes).0.is_some_and(|again| again.digest == config.digest), || "another digest".to_owned())?;
    let policy = config.policy();
    holds(policy.members.len() >= 3 && policy.groups.len() == config.groups.len(), || format!("{policy:?}"))
}

pub fn any_cluster_configuration_is_sound_or_every_fault_is_named() -> Trial {
    let target = Target::new("cluster-configuration", corpus::samples(|name| !name.starts_with("guard")));
    Target { memory_max: 128 << 20, ..target.cases(150) }.judged_by(judged)
}

/// Large files, made of whatever costs most for its length: memory in proportion, and seconds.
#[test]
fn the_costliest_files_are_judged_within_bounds() {
    let sample = fs::read(corpus::root().join("cluster-config/sites-1-1-1.toml")).unwrap();
    let numbered = |piece: fn(usize) -> String| (0..).map(piece);
    // All of it only where time was asked for: the cost is proportional.
    let length = if std::env::var_os("FUZZ_CASES").is_some() { 1 << 20 } else { 1 << 16 };
    let fill = |pieces: &mut dyn Iterator<Item = String>| {
        let mut text = String::new();
        while text.len() < length - 200 {
            text.push_str(&pieces.next().unwrap());
        }
        text.into_bytes()
    };
    let shapes: [(&str, Vec<u8>); 7] = [
        ("groups", fill(&mut numbered(|_| "[[group]]\n".to_owned()))),
        (
            "targets",
            fill(&mut numbered(|_| "[[group.target]]\n".to_owned()).map(|t| t.replace("group.", "reference."))),
        ),
        ("regions", fill(&mut numbered(|n| format!("[[region]]\nname=\"r{n}\"\n")))),
        ("keys", fill(&mut std::iter::once("[[group]]\n".to_owned()).chain((0..).map(|n| format!("k{n:x}=1\n"))))),
        ("tables", fill(&mut numbered(|n| format!("[k{n:x}]\n")))),
        ("brackets", b"a=".iter().copied().chain(std::iter::repeat_n(b'[', length / 2)).collect()),
        ("the sample over and over", sample.iter().copied().cycle().take(length).collect()),
    ];
    for (what, bytes) in shapes {
        let started = std::time::Instant::now();
        let (verdict, cost) = measured(|| judged(&bytes));
        eprintln!("{what}: {} ms, {} MiB", started.elapsed().as_millis(), cost.bytes >> 20);
        verdict.unwrap_or_else(|why| panic!("{what}: {why}"));
        assert!(cost.bytes < 300 * length, "{what}: {} bytes", cost.bytes);
        assert!(started.elapsed().as_secs() < 120, "{what}");
    }
}

pub fn any_guard_configuration_is_sound_or_named_with_its_file() -> Trial {
    let folder = tempfile::tempdir().unwrap();
    let mut corpus = corpus::samples(|name| name.starts_with("guard"));
    let with_lease: Vec<Vec<u8>> = corpus.iter().map(|sample| uncommented(sample, "# [lease]")).collect();
    assert!(with_lease.iter().zip(&corpus).any(|(with, without)| with != without), "a sample of [lease] is shipped");
    corpus.extend(with_lease);
    Target::new("guard-configuration", corpus).judged_by(move |bytes| {
        let path = folder.path().join("guard.toml");
        fs::write(&path, bytes).unwrap();
        loaded(&path)
    })
}

/// A sample with the paragraph that it shows in comments from here on.
fn uncommented(sample: &[u8], from: &str) -> Vec<u8> {
    let text = String::from_utf8(sample.to_vec()).unwrap();
    let Some((before, after)) = text.split_once(from) else { return sample.to_vec() };
    let (shown, rest) = after.split_once("\n\n").unwrap_or((after, ""));
    let shown = format!("{from}{shown}").replace("\n# ", "\n");
    format!("{before}{}\n\n{rest}", shown.trim_start_matches("# ")).into_bytes()
}

fn loaded(path: &Path) -> Result<(), String> {
    match guard::Config::load(path) {
        Err(error) => {
            let text = error.to_string();
            holds(text.contains("guard.toml"), || format!("no file in {text:?}"))?;
            holds(text.len() > path.display().to_string().len() + 3, || format!("no reason in {text:?}"))
        }
        Ok(config) => {
            // What becomes a folder's name must be harmless, and no request may choose the program.
            holds(config.groups.iter().all(|group| guard::is_name(group.as_str())), || format!("{:?}", config.groups))?;
            let mut argv = config.action.values().flat_map(|action| &action.argv);
            let fixed = |words: &Vec<String>| words.first().is_some_and(|program| !program.starts_with('{'));
            holds(argv.all(fixed), || format!("{:?}", config.action))?;
            let Some(lease) = config.lease else { return Ok(()) };
            let is_renewed = lease.renew_every_ms() > 0 && lease.renew_every_ms() <= lease.ttl_ms / 3;
            holds(is_renewed && (500..=60_000).contains(&lease.ttl_ms), || format!("{lease:?}"))?;
            let is_held = lease.holder_names().iter().all(|host| guard::is_name(host.as_str()) && host != &lease.host);
            holds(is_held && !lease.nodes.is_empty(), || format!("{lease:?}"))
        }
    }
}
