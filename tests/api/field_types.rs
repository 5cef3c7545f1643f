//! Requests that change one session at once: each field merges as its type says, or one is a conflict.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    fmt, iter,
};

use axum_typed_session::{
    Counter, Latest, MemoryStore, Once, Session, SessionManager, Set, testing::Gate,
};
use http::{Request, StatusCode};
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{DeserializeOwned, Error, Visitor},
};

use crate::support::{Browser, Change, Log, changing, key};

const CONFLICT: StatusCode = StatusCode::CONFLICT;
const OK: StatusCode = StatusCode::OK;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Profile {
    hits: Counter,
    pages: HashMap<String, Counter>,
    seen: Latest<String>,
    page: String,
    theme: Option<String>,
    tags: Set<String>,
    challenge: Once<String>,
    count: u32,
    is_admin: bool,
    bytes: Vec<u8>,
    list: Vec<String>,
    order: Order,
    roles: HashSet<String>,
    teams: HashMap<String, HashSet<u32>>,
    rounds: Vec<HashSet<u32>>,
}

/// Fields that belong together.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Order {
    to: String,
    cents: u32,
    is_confirmed: bool,
    grants: HashSet<u32>,
}

fn ann() -> Profile {
    Profile {
        challenge: "7f3a".to_owned().into(),
        tags: ["a", "b"].map(str::to_owned).into_iter().collect(),
        order: Order {
            to: "ann".to_owned(),
            cents: 500,
            is_confirmed: false,
            grants: (0..9).collect(),
        },
        list: vec!["tea".to_owned(), "jam".to_owned()],
        roles: ["user", "editor", "admin"].map(str::to_owned).into(),
        teams: [("a".to_owned(), (0..9).collect()), ("b".to_owned(), [1, 2].into())].into(),
        rounds: vec![(0..5).collect(), [1, 2].into()],
        ..Profile::default()
    }
}

type Edit<T> = fn(&mut T);

trait Data: Default + Clone + Serialize + DeserializeOwned + Send + Sync + 'static {}

impl<T: Default + Clone + Serialize + DeserializeOwned + Send + Sync + 'static> Data for T {}

/// A browser with a session of its own in a store.
async fn browser_with<T: Data>(data: T) -> Browser {
    let sessions = SessionManager::<T>::builder().store(MemoryStore::new()).build();
    let mut browser = Browser::new(changing(sessions.unwrap()));
    let start = Change::new(move |session: &mut Session<T>| {
        **session = data.clone();
        session.force_save();
    });
    assert_eq!(browser.send_with(Request::post("/"), start).await.status, OK);
    browser
}

async fn data_of<T: Data>(browser: &mut Browser) -> T {
    serde_json::from_str(&browser.get("/").await.body).unwrap()
}

async fn edited<T: Data>(
    mut browser: Browser,
    gate: Gate,
    edit: impl Fn(&mut T) + Send + Sync + 'static,
) -> StatusCode {
    let change = Change::behind(gate, move |session: &mut Session<T>| edit(session));
    browser.send_with(Request::post("/"), change).await.status
}

/// Makes ten requests, each with its number, that all have loaded the session before the first one commits.
async fn ten_at_once<T: Data>(browser: &Browser, edit: fn(&mut T, u32)) -> Vec<StatusCode> {
    let gate = Gate::new();
    let requests = (0..10).map(|number| {
        tokio::spawn(edited(browser.clone(), gate.clone(), move |data| edit(data, number)))
    });
    let requests: Vec<_> = requests.collect();
    gate.reached(10).await;
    gate.open();
    let mut statuses = Vec::new();
    for request in requests {
        statuses.push(request.await.unwrap());
    }
    statuses
}

/// Lets a slow request load, a quick one finish, and then the slow one commit: its status, and the data.
async fn race<T: Data>(start: T, slow: Edit<T>, quick: Edit<T>) -> (StatusCode, T) {
    let mut browser = browser_with(start).await;
    let gate = Gate::new();
    let slow = tokio::spawn(edited(browser.clone(), gate.clone(), slow));
    gate.reached(1).await;
    let open = Gate::new();
    open.open();
    assert_eq!(edited(browser.clone(), open, quick).await, OK);
    gate.open();
    let status = slow.await.unwrap();
    (status, data_of(&mut browser).await)
}

async fn conflicts<T: Data + fmt::Debug + PartialEq>(start: T, one: Edit<T>, other: Edit<T>) {
    for (slow, quick) in [(one, other), (other, one)] {
        let mut expected = start.clone();
        quick(&mut expected);
        assert_eq!(race(start.clone(), slow, quick).await, (CONFLICT, expected));
    }
}

/// Whichever is the later, both changes hold.
async fn both_hold(one: Edit<Profile>, other: Edit<Profile>) {
    let mut expected = ann();
    one(&mut expected);
    other(&mut expected);
    for (slow, quick) in [(one, other), (other, one)] {
        assert_eq!(race(ann(), slow, quick).await, (OK, expected.clone()));
    }
}

#[tokio::test]
async fn a_counter_counts_every_request() {
    let mut browser = browser_with(ann()).await;
    for _ in 0..10 {
        let count = |profile: &mut Profile, number: u32| {
            profile.hits += 1;
            *profile.pages.entry((number % 3).to_string()).or_default() += 2;
        };
        assert_eq!(ten_at_once(&browser, count).await, [OK; 10]);
    }
    let profile: Profile = data_of(&mut browser).await;
    assert_eq!(profile.hits, 100);
    assert_eq!(["0", "1", "2"].map(|page| *profile.pages[page]), [80, 60, 60]);
    // Setting it is a change by the difference.
    both_hold(|profile| profile.hits -= 5, |profile| profile.hits += 2).await;
    conflicts(ann(), |profile| profile.hits += i64::MAX, |profile| profile.hits += 1).await;
}

#[tokio::test]
async fn a_text_or_latest_value_is_that_of_the_later_commit() {
    let mut browser = browser_with(ann()).await;
    for _ in 0..10 {
        let see = |profile: &mut Profile, number: u32| {
            *profile.seen = format!("10:00:{number:02}");
            profile.page = format!("/{number}");
            profile.theme = Some(format!("theme {number}"));
        };
        assert_eq!(ten_at_once(&browser, see).await, [OK; 10]);
    }
    let profile: Profile = data_of(&mut browser).await;
    assert!(profile.page.starts_with('/') && profile.theme.is_some() && !profile.seen.is_empty());

    let [slow, quick]: [Edit<Profile>; 2] = [
        |profile| profile.seen = "slow".to_owned().into(),
        |profile| profile.seen = "quick".to_owned().into(),
    ];
    assert_eq!(*race(ann(), slow, quick).await.1.seen, "slow");
    // A text that was taken out is not overwritten.
    let themed = Profile { theme: Some("dark".to_owned()), ..ann() };
    let light: Edit<Profile> = |profile| profile.theme = Some("light".to_owned());
    conflicts(themed, |profile| profile.theme = None, light).await;
}

#[tokio::test]
async fn a_set_keeps_what_all_add_and_loses_what_any_removes() {
    let mut browser = browser_with(ann()).await;
    let add = |profile: &mut Profile, number: u32| {
        profile.tags.insert(format!("{:02}", number / 2));
        profile.tags.remove("a");
    };
    assert_eq!(ten_at_once(&browser, add).await, [OK; 10]);
    let profile: Profile = data_of(&mut browser).await;
    assert_eq!(
        profile.tags,
        ["00", "01", "02", "03", "04", "b"].map(str::to_owned).into_iter().collect()
    );
    both_hold(|profile| profile.tags.clear(), |profile| _ = profile.tags.remove("a")).await;
}

#[tokio::test]
async fn only_one_of_ten_requests_takes_a_once() {
    let mut browser = browser_with(ann()).await;
    let take = |profile: &mut Profile, _| assert!(profile.challenge.take().is_some());
    let mut statuses = ten_at_once(&browser, take).await;
    statuses.sort();
    let one_of_ten: Vec<_> = iter::once(OK).chain([CONFLICT; 9]).collect();
    assert_eq!(statuses, one_of_ten);
    assert!(data_of::<Profile>(&mut browser).await.challenge.is_none());
    let make: Edit<Profile> = |profile| profile.challenge = "09bc".to_owned().into();
    conflicts(Profile::default(), make, make).await;
    conflicts(ann(), make, |profile| _ = profile.challenge.take()).await;
    both_hold(|profile| _ = profile.challenge.take(), |profile| profile.hits += 1).await;
}

#[tokio::test]
async fn numbers_and_bytes_that_both_set_are_a_conflict() {
    conflicts(ann(), |profile| profile.count = 1, |profile| profile.count = 2).await;
    conflicts(ann(), |profile| profile.count = 1, |profile| profile.count = 1).await;
    let [one, other]: [Edit<Profile>; 2] =
        [|profile| profile.bytes = vec![1, 2, 3, 4], |profile| profile.bytes = vec![5, 6, 7, 8]];
    conflicts(ann(), one, other).await;
    conflicts(ann(), one, one).await;
    both_hold(|profile| profile.is_admin = true, |profile| profile.is_admin = true).await;
}

#[tokio::test]
async fn lists_that_both_append_to_keep_both_tails() {
    let [rye, oil]: [Edit<Profile>; 2] = [
        |profile| profile.list.push("rye".to_owned()),
        |profile| profile.list.push("oil".to_owned()),
    ];
    let (status, profile) = race(ann(), rye, oil).await;
    assert_eq!((status, profile.list.join(" ")), (OK, "tea jam oil rye".to_owned()));
    conflicts(ann(), rye, |profile| _ = profile.list.remove(0)).await;
}

#[tokio::test]
async fn fields_of_a_nested_struct_are_not_mixed() {
    conflicts(
        ann(),
        |profile| profile.order.is_confirmed = true,
        |profile| profile.order.cents = 900,
    )
    .await;
    conflicts(
        ann(),
        |profile| profile.order.is_confirmed = true,
        |profile| profile.order.to = "bob".to_owned(),
    )
    .await;
    both_hold(
        |profile| profile.order.is_confirmed = true,
        |profile| profile.page = "/pay".to_owned(),
    )
    .await;
}

/// One enum of a login, tagged in every way.
macro_rules! login {
    ($($name:ident: $tagging:meta)*) => {$(
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        #[$tagging]
        enum $name {
            Full { user: String, has_proved: bool },
            Password { user: String },
            Nobody,
        }

        impl Default for $name {
            fn default() -> Self {
                Self::Password { user: "ann".to_owned() }
            }
        }

        impl $name {
            fn switch_user(&mut self) {
                *self = Self::Password { user: "bob".to_owned() };
            }

            fn prove(&mut self) {
                *self = Self::Full { user: "ann".to_owned(), has_proved: true };
            }

            fn leave(&mut self) {
                *self = Self::Nobody;
            }
        }
    )*};
}

login! {
    External: serde(rename_all = "snake_case")
    Internal: serde(tag = "kind")
    Adjacent: serde(tag = "kind", content = "login")
    Untagged: serde(untagged)
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Field<E> {
    page: String,
    login: E,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Flattened<E> {
    page: String,
    #[serde(flatten)]
    login: E,
}

/// Changes of an enum exclude each other, wherever it is.
macro_rules! enum_conflicts {
    ($($name:ident)*) => {$(
        let edits: [Edit<$name>; 3] = [$name::switch_user, $name::prove, $name::leave];
        conflicts($name::default(), edits[0], edits[1]).await;
        conflicts($name::default(), edits[0], edits[2]).await;
        conflicts($name::default(), edits[1], edits[2]).await;
        let [switch, prove]: [Edit<Field<$name>>; 2] =
            [|data| data.login.switch_user(), |data| data.login.prove()];
        conflicts(Field::default(), switch, prove).await;
        conflicts(Field::default(), switch, |data| data.login.leave()).await;
        let [switch, prove]: [Edit<Flattened<$name>>; 2] =
            [|data| data.login.switch_user(), |data| data.login.prove()];
        conflicts(Flattened::default(), switch, prove).await;
        let (status, data) =
            race(Flattened::<$name>::default(), switch, |data| data.page = "/pay".to_owned()).await;
        let mut expected = Flattened { page: "/pay".to_owned(), login: $name::default() };
        switch(&mut expected);
        assert_eq!((status, data), (OK, expected));
    )*};
}

#[tokio::test]
async fn variants_are_not_mixed_however_an_enum_is_tagged() {
    enum_conflicts! { External Internal Adjacent Untagged }
}

#[tokio::test]
async fn a_hash_set_that_nobody_touched_never_conflicts() {
    for _ in 0..20 {
        both_hold(|profile| profile.count = 1, |profile| profile.page = "/pay".to_owned()).await;
        both_hold(|profile| profile.roles.clear(), |profile| profile.order.cents = 900).await;
        both_hold(
            |profile| _ = profile.teams.get_mut("a").unwrap().remove(&1),
            |profile| _ = profile.rounds[0].remove(&1),
        )
        .await;
    }
}

#[tokio::test]
async fn a_list_that_one_request_sorts_and_another_changes_conflicts() {
    #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
    struct Playlist {
        songs: Vec<String>,
        last: Latest<Vec<String>>,
        listeners: HashMap<String, u32>,
    }
    let songs = ["c", "a", "b"].map(str::to_owned).to_vec();
    let listeners = (0..20).map(|number| (number.to_string(), number)).collect();
    let start = Playlist { songs: songs.clone(), last: songs.into(), listeners };
    let sort: Edit<Playlist> = |playlist| playlist.songs.sort();
    conflicts(start.clone(), sort, |playlist| playlist.songs.push("d".to_owned())).await;
    conflicts(start.clone(), |playlist| playlist.songs.truncate(1), sort).await;
    let push: Edit<Playlist> = |playlist| playlist.last.push("d".to_owned());
    let (status, after) = race(start.clone(), |playlist| playlist.last.sort(), push).await;
    assert_eq!((status, &**after.last), (OK, &["a", "b", "c"].map(str::to_owned)[..]));
    let (status, after) = race(start, sort, sort).await;
    assert_eq!((status, &*after.songs), (OK, &["a", "b", "c"].map(str::to_owned)[..]));
}

/// A number that is written as a text, as by `serde_with::DisplayFromStr` and by decimal numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Cents(u64);

impl Serialize for Cents {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Cents {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Digits;

        impl Visitor<'_> for Digits {
            type Value = Cents;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("digits")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Cents, E> {
                text.parse().map(Cents).map_err(E::custom)
            }
        }

        deserializer.deserialize_str(Digits)
    }
}

#[tokio::test]
async fn a_number_that_is_written_as_a_text_is_no_text() {
    conflicts(Cents(100), |cents| cents.0 -= 10, |cents| cents.0 -= 20).await;
}

/// Its JSON has another order each time, so that additions look like a new list.
#[tokio::test]
async fn additions_to_a_hash_set_that_holds_items_conflict() {
    let full = Profile { roles: (0..20).map(|role| role.to_string()).collect(), ..ann() };
    let [one, other]: [Edit<Profile>; 2] = [
        |profile| _ = profile.roles.insert("one".to_owned()),
        |profile| _ = profile.roles.insert("other".to_owned()),
    ];
    conflicts(full, one, other).await;
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Flash {
    Saved,
    Sent,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Flashes {
    plain: Option<Flash>,
    latest: Latest<Option<Flash>>,
    list: Vec<String>,
    set: Set<String>,
}

#[tokio::test]
async fn a_message_that_requests_set_and_take_at_once_needs_latest_or_set() {
    let text = || "x".to_owned();
    let full = Flashes {
        plain: Some(Flash::Saved),
        latest: Some(Flash::Saved).into(),
        list: vec![text()],
        set: iter::once(text()).collect(),
    };
    let [save, send]: [Edit<Flashes>; 2] =
        [|data| data.plain = Some(Flash::Saved), |data| data.plain = Some(Flash::Sent)];
    assert_eq!(race(Flashes::default(), save, save).await.0, OK);
    conflicts(Flashes::default(), save, send).await;
    conflicts(full.clone(), |data| data.plain = None, send).await;
    let add: Edit<Flashes> = |data| data.list.push("y".to_owned());
    conflicts(full.clone(), |data| data.list.clear(), add).await;

    let [take, send]: [Edit<Flashes>; 2] =
        [|data| _ = data.latest.take(), |data| *data.latest = Some(Flash::Sent)];
    for (slow, quick) in [(take, send), (send, take)] {
        let mut expected = full.clone();
        slow(&mut expected);
        assert_eq!(race(full.clone(), slow, quick).await, (OK, expected));
    }
    let [take, add]: [Edit<Flashes>; 2] =
        [|data| data.set.clear(), |data| _ = data.set.insert("y".to_owned())];
    for (slow, quick) in [(take, add), (add, take)] {
        let expected = Flashes { set: iter::once("y".to_owned()).collect(), ..full.clone() };
        assert_eq!(race(full.clone(), slow, quick).await, (OK, expected));
    }
}

#[tokio::test]
async fn a_map_keeps_the_changes_of_different_keys() {
    both_hold(
        |profile| _ = profile.teams.remove("a"),
        |profile| _ = profile.teams.insert("c".to_owned(), [7].into()),
    )
    .await;
    conflicts(
        ann(),
        |profile| _ = profile.teams.remove("a"),
        |profile| profile.teams.get_mut("a").unwrap().clear(),
    )
    .await;
}

#[tokio::test]
async fn the_warning_of_a_conflict_names_the_field_and_nothing_of_the_data() {
    let log = Log::start();
    conflicts(ann(), |profile| profile.order.cents = 900, |profile| profile.order.cents = 901)
        .await;
    let team: [Edit<Profile>; 2] = [
        |profile| profile.teams.get_mut("a").unwrap().clear(),
        |profile| _ = profile.teams.get_mut("a").unwrap().insert(4321),
    ];
    conflicts(ann(), team[0], team[1]).await;
    let lines = log.take();
    let lines: Vec<_> = lines.iter().filter(|line| line.contains("pointer=")).collect();
    assert_eq!(lines.len(), 4);
    for (line, pointer) in lines.iter().zip(["/order", "/order", "/teams", "/teams"]) {
        let ways_out = ["`Counter`", "`Latest`", "`Set`", "`Once`", "`session.update(..)`"];
        assert!(ways_out.iter().all(|way_out| line.contains(way_out)), "{line}");
        assert!(line.contains(&format!("pointer=\"{pointer}\"")), "{line}");
        // The line begins with the time, which may hold any digits.
        let text = line.split_once("WARN").unwrap().1;
        assert!(!text.contains("90") && !text.contains("4321"), "{line}");
    }
}

#[tokio::test]
async fn a_field_becomes_one_of_these_types_without_a_migration() {
    #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
    struct Before {
        hits: u32,
        seen: String,
        tags: HashSet<String>,
        challenge: Option<String>,
        used: Option<String>,
    }
    #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
    struct After {
        hits: Counter,
        seen: Latest<String>,
        tags: Set<String>,
        challenge: Once<String>,
        used: Once<String>,
    }
    let before = Before {
        hits: 5,
        seen: "monday".to_owned(),
        tags: ["a".to_owned()].into(),
        challenge: Some("7f3a".to_owned()),
        used: None,
    };
    let text = r#"{"hits":5,"seen":"monday","tags":["a"],"challenge":"7f3a","used":null}"#;
    assert_eq!(serde_json::to_string(&before).unwrap(), text);

    let sessions = SessionManager::<Before>::builder().keys(key()).kind("profile").build();
    let mut browser = Browser::new(changing(sessions.unwrap()));
    let start = Change::new(move |session: &mut Session<Before>| **session = before.clone());
    browser.send_with(Request::post("/"), start).await;
    let sessions = SessionManager::<After>::builder().keys(key()).kind("profile").build();
    let mut after = Browser::new(changing(sessions.unwrap()));
    after.jar = browser.jar;
    assert_eq!(after.get("/").await.body, text);
}

#[test]
fn these_types_are_used_like_the_values_in_them() {
    #[derive(Debug, PartialEq)]
    struct NoDefault;

    let mut hits = Counter::from(4);
    hits += 3;
    hits -= 2;
    *hits *= 2;
    assert!(hits == 10 && hits > 9 && hits < Counter::from(11) && hits.is_positive());
    assert_eq!(format!("{hits} {hits:>4}"), "10   10");

    let mut seen = Latest::from("monday".to_owned());
    seen.push('!');
    assert_eq!(seen.into_inner(), "monday!");

    let mut tags: Set<&str> = ["b", "a"].into_iter().collect();
    tags.extend(["c"]);
    tags.remove("b");
    assert_eq!((&tags).into_iter().count(), tags.len());
    assert_eq!(tags, BTreeSet::from(["a", "c"]).into());
    assert_eq!(tags.into_iter().collect::<Vec<_>>(), ["a", "c"]);

    let mut challenge = Once::from("7f3a");
    assert!(challenge.is_some());
    assert_eq!((challenge.take(), challenge.take()), (Some("7f3a"), None));
    assert_eq!(challenge, None.into());

    // The values in them need no default.
    assert_eq!(Once::<NoDefault>::default(), None.into());
    assert!(Set::<NoDefault>::default().is_empty());
}

#[test]
fn a_counter_compares_with_a_number() {
    let mut counter = Counter::default();
    counter += 2;
    assert!(counter == 2 && counter != 1);
}

#[tokio::test]
async fn before_save_corrects_a_merge_before_validate_data_sees_it() {
    let cap = |count: &mut Counter| *count = Counter::from((**count).min(1_000));
    let sessions = SessionManager::<Counter>::builder().store(MemoryStore::new());
    let sessions = sessions.before_save(cap).validate_data(|count| **count <= 1_000).build();
    let mut browser = Browser::new(changing(sessions.unwrap()));
    browser
        .send_with(Request::post("/"), Change::new(|count: &mut Session<Counter>| **count += 1))
        .await;
    let gate = Gate::new();
    let slow =
        tokio::spawn(edited::<Counter>(browser.clone(), gate.clone(), |count| *count += 600));
    gate.reached(1).await;
    let open = Gate::new();
    open.open();
    assert_eq!(edited::<Counter>(browser.clone(), open, |count| *count += 600).await, OK);
    gate.open();
    assert_eq!(slow.await.unwrap(), OK);
    assert_eq!(data_of::<Counter>(&mut browser).await, 1_000);
}
