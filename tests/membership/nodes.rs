//! `node list|add|remove|replace|transfer`.

use crate::rig::Rig;

const REASON: [&str; 2] = ["--reason", "a test"];

/// The words that describe a new node.
fn newcomer(rig: &Rig, id: u64) -> Vec<String> {
    let (site, address) = (rig.site(id).clone(), rig.address(id));
    let words = [site.id.to_string(), site.name, "--region".to_owned(), site.region, "--address".to_owned(), address];
    words.to_vec()
}

fn add(rig: &Rig, id: u64, more: &[&str]) -> crate::rig::Said {
    let words = newcomer(rig, id);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    rig.ctl(&[&["node", "add"], &words[..], &REASON, more].concat())
}

fn replace(rig: &Rig, old: &str, id: u64, more: &[&str]) -> crate::rig::Said {
    let words = newcomer(rig, id);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    rig.ctl(&[&["node", "replace", old, "--with"], &words[..], &REASON, more].concat())
}

fn audit(rig: &Rig) -> Vec<(String, String, String)> {
    let audit = rig.json(&["audit", "--limit", "200"]);
    let text = |entry: &serde_json::Value, key: &str| entry[key].as_str().unwrap().to_owned();
    let line = |entry: &serde_json::Value| (text(entry, "by"), text(entry, "what"), text(entry, "outcome"));
    audit["entries"].as_array().unwrap().iter().map(line).collect()
}

#[test]
fn a_dead_node_is_replaced_and_its_number_is_never_used_again() {
    let mut rig = Rig::formed(&[(4, "hcmc-2", "hcmc")]);
    rig.kill(1);
    replace(&rig, "hcmc-1", 4, &["--yes", "hcmc-1"]).refused(3, "configuration has no [[node]] with id = 4");
    // The new one takes the old one's place in the file, everywhere.
    let file = rig.file(&[2, 3, 4], 1);
    rig.roll(&[2, 3], &file);
    replace(&rig, "hcmc-1", 4, &["--yes", "hcmc-1"]).refused(3, "hcmc-2 does not answer as node 4");
    rig.start(4, &file);
    rig.ctl(&["node", "remove", "hcmc-1", "--yes", "hcmc-1", "--reason", "dead"]).refused(3, "2 voters would be left");
    let dry = rig.until("the new one answers", |rig| {
        let dry = replace(rig, "hcmc-1", 4, &["--dry-run"]);
        (dry.code == 0).then_some(dry)
    });
    replace(&rig, "hcmc-1", 4, &["--yes", "hcmc-9"]).refused(2, "--yes hcmc-9: but this is about hcmc-1");
    assert!(dry.out.contains("voters after  hanoi-1, witness-1, hcmc-2"), "{}", dry.out);
    assert_eq!(rig.voters(), ["hcmc-1", "hanoi-1", "witness-1"], "a dry run changes nothing");

    let done = replace(&rig, "hcmc-1", 4, &["--yes", "hcmc-1"]);
    assert_eq!(done.code, 0, "{done:?}");
    assert!(done.out.contains("hcmc-2 votes in place of hcmc-1"), "{}", done.out);
    assert_eq!(rig.voters(), ["hanoi-1", "witness-1", "hcmc-2"]);
    let again = replace(&rig, "hcmc-1", 4, &["--yes", "hcmc-1"]);
    assert_eq!(again.code, 0, "the same again changes nothing: {again:?}");

    // Its vote counts.
    rig.kill(2);
    rig.until_adopted();
    let list = rig.json(&["node", "list"]);
    let row = |id: u64| list["nodes"].as_array().unwrap().iter().find(|node| node["id"] == id).unwrap().clone();
    assert_eq!(
        (&row(1)["role"], &row(2)["reachable"], &row(4)["reachable"]),
        (&"gone".into(), &false.into(), &true.into())
    );
    assert_eq!(row(4)["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(row(1)["by"], "operator:linh");
    // Not even by a node that was not there when it was used.
    rig.start(2, &file);
    rig.until_adopted();
    add(&rig, 1, &[]).refused(3, "number 1 was hcmc-1's: numbers are used once");

    // Any node answers, also one that has just started and has not applied everything.
    let audit = rig.until("the audit to have it", |rig| {
        let audit = audit(rig);
        audit.iter().any(|(_, what, outcome)| what.contains("joined node 4") && outcome == "done").then_some(audit)
    });
    let has = |what: &str, outcome: &str| audit.iter().any(|(_, w, o)| w.contains(what) && o.contains(outcome));
    assert!(has("replace node 1 by node 4", "done"), "{audit:#?}");
    assert!(has("replace node hcmc-1 by node 4", "refused: "), "{audit:#?}");
}

#[test]
fn two_join_in_balance_and_leadership_goes_where_it_is_sent() {
    let mut rig = Rig::formed(&[(4, "hcmc-2", "hcmc"), (5, "hanoi-2", "hanoi")]);
    let file = rig.file(&[1, 2, 3, 4, 5], 1);
    rig.roll(&[1, 2, 3], &file);
    let warned = rig.json(&["status"])["warnings"].to_string();
    assert!(warned.contains("in the configuration, but no voter: hcmc-2, hanoi-2"), "{warned}");
    rig.start(4, &file);
    rig.start(5, &file);
    let alone = rig.until("the new one answers", |rig| {
        let alone = add(rig, 4, &[]);
        (!alone.err.contains("does not answer")).then_some(alone)
    });
    alone.refused(3, "when hcmc is lost, 2 of 4 voters remain, and 3 are needed");
    // Given up at once, it stays what it is, and the same command goes on.
    add(&rig, 4, &["--learner", "--wait", "1ms"]).refused(1, "hcmc-2 stays a learner");
    let rests = add(&rig, 4, &["--learner"]);
    assert!(rests.code == 0 && rests.out.contains("hcmc-2 is a learner"), "{rests:?}");
    assert_eq!(rig.voters().len(), 3);
    let both = add(&rig, 5, &[]);
    assert!(both.code == 0 && both.out.contains("which waited as a learner"), "{both:?}");
    assert_eq!(rig.voters(), ["hcmc-1", "hanoi-1", "witness-1", "hcmc-2", "hanoi-2"]);

    let leader = rig.until_adopted();
    let to = ["hcmc-1", "hcmc-2"].into_iter().find(|name| *name != leader).unwrap();
    let moved = rig.json(&["node", "transfer", to, "--reason", "a test"]);
    assert_eq!(moved["leader"], to);
    rig.until("the steward hands it to the witness", |rig| (rig.until_adopted() == "witness-1").then_some(()));
    let stays = rig.ctl(&["node", "transfer", "witness-1", "--reason", "a test"]);
    assert!(stays.code == 0 && stays.out.contains("witness-1 leads already"), "{stays:?}");
    rig.ctl(&["node", "transfer", "nobody", "--reason", "a test"]).refused(3, "there is no node nobody");
    rig.ctl(&["node", "remove", "witness-1", "--yes", "witness-1", "--reason", "a test"]).refused(3, "witness-1 leads");
    rig.ctl(&["node", "remove", "hcmc-2", "--yes", "hcmc-2", "--reason", "a test"])
        .refused(3, "when hanoi is lost, 2 of 4 voters remain");
}

#[test]
fn a_change_goes_on_under_the_next_leader() {
    let mut rig = Rig::formed(&[(4, "witness-2", "witness"), (5, "witness-3", "witness")]);
    let file = rig.file(&[1, 2, 3, 4, 5], 1);
    rig.roll(&[1, 2, 3], &file);
    rig.start(4, &file);
    rig.until("it is admitted", |rig| {
        let tried = add(rig, 4, &["--wait", "1ms"]);
        (tried.code == 1 || tried.code == 0).then_some(())
    });
    add(&rig, 5, &[]).refused(3, "");
    let leader = rig.until_adopted();
    let leader = rig.id_of(&leader);
    rig.kill(leader);
    rig.until_adopted();
    let done = rig.until("it is a voter", |rig| {
        let done = add(rig, 4, &[]);
        (done.code == 0).then_some(done)
    });
    assert!(done.out.contains("witness-2 votes"), "{done:?}");
    assert_eq!(rig.voters(), ["hcmc-1", "hanoi-1", "witness-1", "witness-2"]);
    // It may go again at once: three are left, and two of them answer.
    let gone = rig.ctl(&["node", "remove", "witness-2", "--yes", "witness-2", "--reason", "a test"]);
    let is_leader = gone.err.contains("witness-2 leads");
    assert!(gone.code == 0 || is_leader, "{gone:?}");
    if !is_leader {
        assert_eq!(rig.voters(), ["hcmc-1", "hanoi-1", "witness-1"]);
    }
}

#[test]
fn a_node_of_another_cluster_or_epoch_is_not_taken() {
    let mut rig = Rig::formed(&[
        (4, "witness-2", "witness"),
        (5, "witness-3", "witness"),
        (6, "hcmc-9", "hcmc"),
        (7, "hanoi-9", "hanoi"),
    ]);
    let file = rig.file(&[1, 2, 3, 4, 5], 1);
    rig.roll(&[1, 2, 3], &file);
    // They know of nobody in this cluster, whom they would ask at their start, and end.
    let (other, later) = (rig.file_of("other", &[4, 6, 7], 1), rig.file(&[5, 6, 7], 2));
    rig.start(4, &other);
    rig.start(5, &later);
    for (id, words) in [(4, "of cluster"), (5, "of epoch")] {
        let refused = rig.until("it answers, and refuses", |rig| {
            let said = add(rig, id, &[]);
            said.err.contains("header.").then_some(said)
        });
        refused.refused(3, words);
    }
    assert_eq!(rig.voters().len(), 3);
}

#[test]
fn a_node_under_another_configuration_votes_and_everybody_is_told() {
    let mut rig = Rig::formed(&[(4, "witness-2", "witness"), (5, "witness-3", "witness")]);
    let (old, file) = (rig.file(&[1, 2, 3], 1), rig.file(&[1, 2, 3, 4, 5], 1));
    // A leader adopts the file that it runs under itself: node 1 must not lead meanwhile.
    rig.kill(1);
    rig.restart(&[2, 3], &file);
    rig.start(1, &old);
    let row = rig.until("the one with the old file is seen", |rig| {
        let list = rig.json(&["node", "list"]);
        let row = list["nodes"].as_array().unwrap().iter().find(|node| node["name"] == "hcmc-1").unwrap().clone();
        (row["configuration"] == "other" && row["reachable"] == true && row["behind_entries"] == 0).then_some(row)
    });
    assert_eq!((&row["role"], &row["reachable"]), (&"voter".into(), &true.into()));
    rig.ctl(&["node", "transfer", "hcmc-1", "--reason", "a test"]).refused(3, "runs under another configuration");
    let told = rig.ctl(&["status"]);
    assert!(told.out.contains("runs under another configuration"), "{}", told.out);
}
