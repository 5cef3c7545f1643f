//! Guards of one request that commit at once: they take their turns, and none waits for ever.

use std::{sync::Arc, time::Duration};

use axum::response::IntoResponse as _;
use axum_typed_session::{Session, testing::ManualClock};
use futures_util::poll;
use http::StatusCode;
use tokio::{
    sync::{Barrier, oneshot},
    time::Instant,
};

use crate::{
    guards::{
        ADD_TEA, Act, COUNT, LOG_IN_WITH_NEW_ID, NOTE_LAST, Page, browser_of, pages, probed, word,
    },
    requests::{Visit, in_every_order, run, seen, with_guards},
    support::{Mode, SECOND},
};

/// Commits two guards of one request at once, in every order of their steps, and hands to `check` what
/// they came to and what is left.
async fn at_once(first: Act, second: Act, check: impl Fn([&str; 2], Option<Page>, usize, &str)) {
    in_every_order(async |turns| {
        let (_, sessions, mut browser) = probed(Page::of("ada")).await;
        let order = turns.clone();
        let answer = run(&mut browser, async move |mut visit: Visit<Page>| {
            let (mut one, mut other) = (visit.session().await?, visit.session().await?);
            first(&mut one);
            second(&mut other);
            let outcomes = order.race(one.commit(), other.commit()).await;
            let outcomes = [outcomes.0, outcomes.1];
            let words = outcomes.each_ref().map(word).join(" ");
            let guards = outcomes.into_iter().filter_map(Result::ok);
            Ok((with_guards(guards).into_parts().0, words).into_response())
        })
        .await;
        assert_eq!(answer.status, StatusCode::OK, "{turns:?}");
        let (one, other) = answer.body.split_once(' ').unwrap();
        let of_ada = sessions.sessions_of("ada").await.unwrap().len();
        check([one, other], seen(&browser).await, of_ada, &format!("{turns:?}"));
    })
    .await;
}

#[tokio::test]
async fn two_commits_at_once_with_different_fields_both_land() {
    at_once(NOTE_LAST, ADD_TEA, |words, page, _, at| {
        let page = page.unwrap();
        assert_eq!(words, ["ok"; 2], "{at}");
        assert_eq!((&*page.last, page.cart.len()), ("here", 1), "{at}");
    })
    .await;
}

#[tokio::test]
async fn of_two_commits_at_once_that_count_one_is_refused() {
    at_once(COUNT, COUNT, |mut words, page, _, at| {
        words.sort_unstable();
        assert_eq!((words, page.unwrap().count), (["conflict", "ok"], 1), "{at}");
    })
    .await;
}

#[tokio::test]
async fn a_commit_beside_one_that_changes_the_id_lands() {
    let regenerate: Act = Session::regenerate;
    at_once(regenerate, ADD_TEA, |words, page, of_ada, at| {
        assert_eq!((words, page.unwrap().cart.len(), of_ada), (["ok"; 2], 1, 1), "{at}");
    })
    .await;
    at_once(regenerate, regenerate, |words, page, of_ada, at| {
        assert_eq!((words, page, of_ada), (["ok"; 2], Some(Page::of("ada")), 1), "{at}");
    })
    .await;
}

#[tokio::test]
async fn a_commit_beside_a_logout_undoes_nothing() {
    for first in [ADD_TEA, Session::regenerate, LOG_IN_WITH_NEW_ID, Session::force_save] {
        let logout: Act = Session::destroy;
        at_once(first, logout, |words, page, of_ada, at| {
            assert_eq!(words[1], "ok", "{at}");
            assert!(["ok", "gone"].contains(&words[0]), "{at}: {words:?}");
            assert_eq!((page, of_ada), (None, 0), "{at}: {words:?}");
        })
        .await;
    }
}

#[tokio::test]
async fn a_commit_beside_a_clear_leaves_nothing_in_it() {
    let clear: Act = Session::clear;
    at_once(ADD_TEA, clear, |words, page, _, at| {
        assert_eq!((words[1], page), ("ok", Some(Page::default())), "{at}");
        assert!(["ok", "conflict"].contains(&words[0]), "{at}: {words:?}");
    })
    .await;
}

/// Two tasks on two threads commit their guards of one request.
async fn on_two_threads(mode: Mode, round: u32, second: Act) -> (Vec<&'static str>, Page) {
    let sessions = pages(mode, &ManualClock::new(), true).build().unwrap();
    let mut browser = browser_of(&sessions, Page::of("ada")).await;
    let (sender, outcomes) = oneshot::channel();
    let answer = run(&mut browser, async move |mut visit: Visit<Page>| {
        let (one, other) = (visit.session().await?, visit.session().await?);
        let barrier = Arc::new(Barrier::new(2));
        let tasks = [(one, COUNT, round % 7), (other, second, round % 11)];
        let tasks = tasks.map(|(mut session, act, pauses)| {
            let barrier = barrier.clone();
            tokio::spawn(async move {
                act(&mut session);
                barrier.wait().await;
                for _ in 0..pauses {
                    tokio::task::yield_now().await;
                }
                session.commit().await
            })
        });
        let (mut words, mut guards) = (Vec::new(), Vec::new());
        for task in tasks {
            let outcome = task.await.unwrap();
            words.push(word(&outcome));
            guards.extend(outcome.ok());
        }
        sender.send(words).unwrap();
        Ok(with_guards(guards))
    })
    .await;
    assert_eq!(answer.status, StatusCode::OK);
    (outcomes.await.unwrap(), seen(&browser).await.unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_two_commits_on_two_threads_none_is_acknowledged_and_lost() {
    for mode in [Mode::Cookie, Mode::Store] {
        for round in 0..200 {
            let (words, page) = on_two_threads(mode, round, COUNT).await;
            let counted = words.iter().filter(|word| **word == "ok").count();
            assert_eq!((counted, page.count), (1, 1), "{mode:?}: {words:?}");
            let (words, page) = on_two_threads(mode, round, ADD_TEA).await;
            let landed = (page.count, page.cart.len());
            assert_eq!((&words[..], landed), (&["ok", "ok"][..], (1, 1)), "{mode:?}");
        }
    }
}

/// What another guard does while a commit was begun and is polled no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Beside {
    Read,
    Write,
    Update,
    End,
}

/// As in a lost `select!`, or a `join!` that another branch left.
async fn beside_an_abandoned_commit(beside: Beside) -> (&'static str, Duration) {
    let (_, _, mut browser) = probed(Page::of("ada")).await;
    let (sender, result) = oneshot::channel();
    let answer = run(&mut browser, async move |mut visit: Visit<Page>| {
        let (mut one, mut other) = (visit.session().await?, visit.session().await?);
        NOTE_LAST(&mut one);
        match beside {
            Beside::Read | Beside::Update => {}
            Beside::Write => ADD_TEA(&mut other),
            Beside::End => other.destroy(),
        }
        let mut abandoned = Box::pin(one.commit());
        assert!(poll!(&mut abandoned).is_pending());
        let begun = Instant::now();
        let commit = async {
            if beside == Beside::Update {
                other.update(|page| page.count += 1).await?;
            }
            other.commit().await
        };
        let outcome = tokio::time::timeout(60 * SECOND, commit).await;
        let word = outcome.as_ref().map_or("hung for a minute", word);
        sender.send((word, begun.elapsed())).unwrap();
        // A commit that is dropped holds nobody up.
        drop((abandoned, outcome));
        let mut last = visit.session().await?;
        last.count += 7;
        Ok(last.commit().await?.into_response())
    })
    .await;
    assert_eq!(answer.status, StatusCode::OK, "{beside:?}");
    assert_eq!(seen::<Page>(&browser).await.unwrap().count, 7, "{beside:?}");
    result.await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_reader_does_not_wait_for_a_commit_that_is_polled_no_more() {
    let (word, waited) = beside_an_abandoned_commit(Beside::Read).await;
    assert_eq!((word, waited), ("ok", Duration::ZERO));
}

#[tokio::test(start_paused = true)]
async fn a_writer_waits_five_seconds_for_a_commit_that_is_polled_no_more() {
    for beside in [Beside::Write, Beside::Update, Beside::End] {
        let (word, waited) = beside_an_abandoned_commit(beside).await;
        assert_eq!(word, "conflict", "{beside:?}");
        assert!((5 * SECOND..6 * SECOND).contains(&waited), "{beside:?}: {waited:?}");
    }
}
