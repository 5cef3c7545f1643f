//! The order of a set means nothing: it is neither a change nor a conflict. That of a list is.

use std::collections::{HashMap, HashSet};

use axum_typed_session::{
    MemoryStore, Session, SessionManager,
    testing::{Gate, ManualClock},
};
use http::{Request, StatusCode};
use serde::{Deserialize, Serialize};

use crate::support::{Browser, Change, EventLog, Mode, changing, in_both_modes};

in_both_modes! {
    a_set_that_was_only_borrowed_is_no_change,
    an_edited_set_is_a_change,
    a_reordered_list_is_a_change,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Profile {
    name: String,
    mail: String,
    seen: u32,
    roles: HashSet<String>,
    teams: HashMap<String, HashSet<u32>>,
    rounds: Vec<HashSet<u32>>,
    tags: Option<HashSet<u32>>,
    cart: HashSet<Line>,
    list: Vec<u32>,
    device: Device,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
struct Line {
    sku: String,
    sizes: Vec<u32>,
}

/// No more than a text and a set, so that it could be an enum with a tag and its content.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Device {
    kind: String,
    grants: HashSet<u32>,
}

fn texts<const N: usize>(texts: [&str; N]) -> HashSet<String> {
    texts.map(str::to_owned).into()
}

fn line(sku: &str, sizes: &[u32]) -> Line {
    Line { sku: sku.to_owned(), sizes: sizes.to_vec() }
}

fn ann() -> Profile {
    Profile {
        name: "ann".to_owned(),
        roles: texts(["user", "editor", "admin"]),
        teams: [("a".to_owned(), (0..9).collect()), ("b".to_owned(), [1, 2].into())].into(),
        rounds: vec![[1, 2].into(), [1, 2].into(), (0..5).collect()],
        tags: Some([1, 2].into()),
        cart: [line("tea", &[1, 2]), line("jam", &[2, 1]), line("oil", &[])].into(),
        list: vec![3, 1, 2],
        device: Device { kind: "phone".to_owned(), grants: (0..9).collect() },
        ..Profile::default()
    }
}

type Edit = fn(&mut Profile);

/// A change of the profile.
fn edit(edit: impl Fn(&mut Profile) + Send + Sync + 'static) -> Change<Profile> {
    Change::new(move |session: &mut Session<Profile>| edit(session))
}

/// How many of these changes of one session, one after the other, were saved.
async fn saved(mode: Mode, changes: &[Edit]) -> usize {
    let events = EventLog::default();
    let sessions = mode.builder::<Profile>(&ManualClock::new()).on_event(events.hook()).build();
    let mut browser = Browser::new(changing(sessions.unwrap()));
    let start = edit(|profile| *profile = ann());
    browser.send_with(Request::post("/"), start).await;
    assert_eq!(events.take(), ["created"]);
    let mut saved = 0;
    for change in changes {
        let answer = browser.send_with(Request::post("/"), edit(*change)).await;
        assert_eq!(answer.status, StatusCode::OK);
        if events.take() == ["saved"] {
            saved += 1;
        } else {
            answer.expect_no_cookie();
        }
    }
    saved
}

async fn a_set_that_was_only_borrowed_is_no_change(mode: Mode) {
    let reorder: Edit = |profile| {
        let again = |set: &HashSet<u32>| set.iter().copied().collect();
        profile.roles = profile.roles.iter().cloned().collect();
        profile.rounds = profile.rounds.iter().map(again).collect();
        profile.cart = profile.cart.drain().collect();
    };
    let there_and_back: Edit = |profile| {
        profile.roles.remove("admin");
        profile.roles.insert("admin".to_owned());
    };
    let changes = [|_: &mut Profile| {}, reorder, there_and_back].repeat(5);
    assert_eq!(saved(mode, &changes).await, 0);
}

async fn an_edited_set_is_a_change(mode: Mode) {
    // All but the first leave as many bytes as there were, and of the same kinds.
    let changes: [Edit; 4] = [
        |profile| profile.tags = Some([12, 34].into()),
        |profile| profile.tags = Some([13, 24].into()),
        |profile| {
            profile.roles.remove("user");
            profile.roles.insert("resu".to_owned());
        },
        |profile| {
            profile.cart.remove(&line("tea", &[1, 2]));
            profile.cart.insert(line("tea", &[2, 1]));
        },
    ];
    assert_eq!(saved(mode, &changes).await, changes.len());
}

async fn a_reordered_list_is_a_change(mode: Mode) {
    let changes: [Edit; 3] = [
        |profile| profile.list.reverse(),
        |profile| profile.list.swap(0, 1),
        |profile| profile.rounds.swap(1, 2),
    ];
    assert_eq!(saved(mode, &changes).await, changes.len());
}

/// Lets a slow request load, a quick one finish, and then the slow one commit: its status, and the data.
async fn race(pointers: &[&str], slow: Edit, quick: Edit) -> (StatusCode, Profile) {
    let sessions = SessionManager::<Profile>::builder()
        .store(MemoryStore::new())
        .last_write_wins(pointers.iter().copied())
        .build();
    let app = changing(sessions.unwrap());
    let mut browser = Browser::new(app);
    let post = || Request::post("/");
    browser.send_with(post(), edit(|profile| *profile = ann())).await;

    let gate = Gate::new();
    let slow = Change::behind(gate.clone(), move |session: &mut Session<Profile>| {
        slow(session);
    });
    let mut slow_browser = browser.clone();
    let slow_request =
        tokio::spawn(async move { slow_browser.send_with(post(), slow).await.status });
    gate.reached(1).await;
    let answer = browser.send_with(post(), edit(quick)).await;
    assert_eq!(answer.status, StatusCode::OK);
    gate.open();
    let status = slow_request.await.unwrap();
    let body = browser.get("/").await.body;
    (status, serde_json::from_str(&body).unwrap())
}

#[track_caller]
fn is_merged(name: &str, (status, data): (StatusCode, Profile), expected: Profile) {
    assert_eq!((status, data), (StatusCode::OK, expected), "{name}");
}

#[tokio::test]
async fn sets_that_nobody_touched_are_no_conflict() {
    let [name, mail]: [Edit; 2] =
        [|profile| profile.name = "bob".to_owned(), |profile| profile.mail = "a@b".to_owned()];
    let expected = Profile { name: "bob".to_owned(), mail: "a@b".to_owned(), ..ann() };
    for _ in 0..20 {
        is_merged("", race(&[], name, mail).await, expected.clone());
    }
}

#[tokio::test]
async fn sets_keep_what_both_add_and_lose_what_either_removes() {
    let cases: [(&str, Edit, Edit, Edit); 9] = [
        (
            "both add",
            |profile| _ = profile.roles.insert("buyer".to_owned()),
            |profile| _ = profile.roles.insert("owner".to_owned()),
            |profile| profile.roles.extend(texts(["buyer", "owner"])),
        ),
        (
            "both add the same",
            |profile| _ = profile.roles.insert("buyer".to_owned()),
            |profile| _ = profile.roles.insert("buyer".to_owned()),
            |profile| _ = profile.roles.insert("buyer".to_owned()),
        ),
        (
            "both remove one and add another",
            |profile| profile.roles = texts(["user", "editor", "buyer"]),
            |profile| profile.roles = texts(["user", "editor", "owner"]),
            |profile| profile.roles = texts(["user", "editor", "buyer", "owner"]),
        ),
        (
            "one removes what the other keeps",
            |profile| _ = profile.roles.insert("buyer".to_owned()),
            |profile| _ = profile.roles.remove("admin"),
            |profile| profile.roles = texts(["user", "editor", "buyer"]),
        ),
        (
            "one removes all",
            |profile| _ = profile.roles.insert("buyer".to_owned()),
            |profile| profile.roles.clear(),
            |profile| profile.roles = texts(["buyer"]),
        ),
        (
            "within a map",
            |profile| profile.teams.get_mut("b").unwrap().extend([3, 4]),
            |profile| _ = profile.teams.get_mut("b").unwrap().remove(&1),
            |profile| _ = profile.teams.insert("b".to_owned(), [2, 3, 4].into()),
        ),
        (
            "within an option",
            |profile| profile.tags = Some([2, 3].into()),
            |profile| profile.tags = Some([1, 2, 4].into()),
            |profile| profile.tags = Some([2, 3, 4].into()),
        ),
        (
            "of structs",
            |profile| _ = profile.cart.insert(line("rye", &[2, 1])),
            |profile| _ = profile.cart.remove(&line("tea", &[1, 2])),
            |profile| {
                profile.cart.remove(&line("tea", &[1, 2]));
                profile.cart.insert(line("rye", &[2, 1]));
            },
        ),
        (
            "beside a text that looks like a tag",
            |profile| {
                profile.device.kind = "desk".to_owned();
                profile.device.grants.remove(&1);
                profile.device.grants.insert(10);
            },
            |profile| _ = profile.device.grants.insert(11),
            |profile| {
                profile.device.kind = "desk".to_owned();
                profile.device.grants.remove(&1);
                profile.device.grants.extend([10, 11]);
            },
        ),
    ];
    for (name, one, other, both) in cases {
        let mut expected = ann();
        both(&mut expected);
        is_merged(name, race(&[], one, other).await, expected.clone());
        is_merged(name, race(&[], other, one).await, expected);
    }
}

#[tokio::test]
async fn a_set_within_a_list_is_edited_by_one_side_only() {
    let [name, rounds, list]: [Edit; 3] = [
        |profile| profile.name = "bob".to_owned(),
        |profile| _ = profile.rounds[0].insert(3),
        |profile| profile.rounds.push([7, 8].into()),
    ];
    let mut expected = ann();
    for edit in [name, rounds] {
        edit(&mut expected);
    }
    is_merged("", race(&[], name, rounds).await, expected);
    assert_eq!(race(&[], rounds, list).await.0, StatusCode::CONFLICT);
}

#[tokio::test]
async fn the_order_of_a_list_still_counts_in_a_merge() {
    let [reverse, push, remove]: [Edit; 3] = [
        |profile| profile.list.reverse(),
        |profile| profile.list.push(4),
        |profile| _ = profile.list.remove(0),
    ];
    for (one, other) in [(reverse, push), (push, remove), (remove, reverse)] {
        for (one, other) in [(one, other), (other, one)] {
            assert_eq!(race(&[], one, other).await.0, StatusCode::CONFLICT);
        }
    }
    let mut expected = ann();
    expected.list.extend([4, 4]);
    is_merged("", race(&[], push, push).await, expected);
}

#[tokio::test]
async fn last_write_wins_takes_no_set_that_ours_left_alone() {
    let mut expected = ann();
    let [ours, theirs]: [Edit; 2] = [
        |profile| profile.name = "bob".to_owned(),
        |profile| profile.device.grants.extend([20, 21]),
    ];
    for edit in [ours, theirs] {
        edit(&mut expected);
    }
    for _ in 0..10 {
        is_merged("", race(&["/device"], ours, theirs).await, expected.clone());
    }
}
