//! What is kept of members comes to the same whatever is told twice or in another order.

use crate::mini;
use koc_chassis::{
    ids::{MemberId, ProgrammeId},
    members::{self, Merge, Place, Purpose, Standing},
};
use koc_tests::service;
use rand::{
    Rng, SeedableRng,
    rngs::StdRng,
    seq::{IndexedRandom, SliceRandom},
};
use sqlx::PgConnection;
use std::collections::BTreeMap;
use uuid::Uuid;

const MEMBERS: usize = 5;
const STEPS: usize = 14;
const HISTORIES: u64 = 12;
const ORDERS: usize = 4;

/// A history as the registry allows it: only who leads nowhere is merged, into another who leads nowhere, and undone is a winner's last.
fn history(programme: ProgrammeId, ids: &[MemberId], random: &mut StdRng) -> Vec<Merge> {
    let (mut told, mut standing): (Vec<Merge>, Vec<Merge>) = (Vec::new(), Vec::new());
    for _ in 0..STEPS {
        let merged = |member: MemberId| standing.iter().any(|merge| merge.loser == member);
        let last = standing.iter().rev().find(|merge| !merged(merge.winner)).copied();
        match last {
            Some(last) if random.random_bool(0.4) => {
                standing.retain(|merge| merge.id != last.id);
                told.push(Merge { undone: true, ..last });
            }
            _ => {
                let free: Vec<MemberId> = ids.iter().copied().filter(|member| !merged(*member)).collect();
                if free.len() < 2 {
                    continue;
                }
                let pair: Vec<MemberId> = free.choose_multiple(random, 2).copied().collect();
                let merge = Merge { programme, id: Uuid::now_v7(), loser: pair[0], winner: pair[1], undone: false };
                standing.push(merge);
                told.push(merge);
            }
        }
    }
    told
}

/// Where each leads, by its place among `ids`.
async fn ends(conn: &mut PgConnection, programme: ProgrammeId, ids: &[MemberId]) -> BTreeMap<usize, usize> {
    let place = |id: MemberId| ids.iter().position(|other| *other == id).expect("one of them");
    let led = members::led(conn, programme, ids).await.expect("read");
    led.into_iter().map(|(from, to)| (place(from), place(to))).collect()
}

/// Where each leads, by what was told in order.
fn model(told: &[Merge], ids: &[MemberId]) -> BTreeMap<usize, usize> {
    let mut next: BTreeMap<MemberId, MemberId> = BTreeMap::new();
    for merge in told {
        match merge.undone {
            true => next.remove(&merge.loser),
            false => next.insert(merge.loser, merge.winner),
        };
    }
    let place = |id: MemberId| ids.iter().position(|other| *other == id).expect("one of them");
    let end = |from: MemberId| std::iter::successors(Some(from), |at| next.get(at).copied()).last().expect("itself");
    next.keys().map(|from| (place(*from), place(end(*from)))).collect()
}

#[tokio::test]
async fn merges_lead_to_the_same_members_in_whatever_order_they_are_told() {
    let database = service::database(&mini::schema()).await;
    let mut conn = database.admin.acquire().await.expect("a connection");
    for seed in 0..HISTORIES {
        let mut random = StdRng::seed_from_u64(seed);
        let ids: Vec<MemberId> = (0..MEMBERS).map(|_| MemberId::new()).collect();
        let told = history(ProgrammeId::new(), &ids, &mut random);
        let expected = model(&told, &ids);
        for order in 0..ORDERS {
            // The first as it happened; the others shuffled, and some of it twice.
            let programme = ProgrammeId::new();
            let mut heard = told.clone();
            if order > 0 {
                heard.extend(told.choose_multiple(&mut random, 3).copied());
                heard.shuffle(&mut random);
            }
            for merge in heard {
                members::put_merge(&mut conn, &Merge { programme, ..merge }).await.expect("kept");
            }
            assert_eq!(ends(&mut conn, programme, &ids).await, expected, "seed {seed}, order {order}: {told:?}");
            for id in &ids {
                let group = members::group(&mut conn, programme, *id).await.expect("read");
                assert!(group.contains(id), "a member is one of its own person");
            }
        }
    }
}

#[tokio::test]
async fn of_what_is_told_of_a_member_the_highest_version_counts() {
    let database = service::database(&mini::schema()).await;
    let mut conn = database.admin.acquire().await.expect("a connection");
    let (programme, member) = (ProgrammeId::new(), MemberId::new());
    assert!(members::put_suspended(&mut conn, programme, member, 5, true).await.expect("kept"));
    assert!(!members::put_suspended(&mut conn, programme, member, 4, false).await.expect("not kept"), "nothing changes");
    assert!(
        !members::put(&mut conn, programme, member, 4, &Standing::default()).await.expect("not kept"),
        "nor does an older answer"
    );
    for purpose in [Purpose::Profiling, Purpose::Contact] {
        members::put_consent(&mut conn, programme, member, 6, purpose, false).await.expect("kept");
    }
    members::put_consent(&mut conn, programme, member, 6, Purpose::Contact, false).await.expect("told twice");
    members::put_consent(&mut conn, programme, member, 7, Purpose::Profiling, true).await.expect("kept");
    assert!(!members::put_consent(&mut conn, programme, member, 6, Purpose::Profiling, false).await.expect("told late"));
    let expected = Standing::new(true, vec![Purpose::Contact.name().to_owned()]);
    assert_eq!(members::standing(&mut conn, programme, member).await.expect("read"), expected);

    // By the id of one that leads to it, it is the same; of somebody else nothing was told.
    let loser = MemberId::new();
    let merge = Merge { programme, id: Uuid::now_v7(), loser, winner: member, undone: false };
    assert!(members::put_merge(&mut conn, &merge).await.expect("kept"));
    assert!(!members::put_merge(&mut conn, &merge).await.expect("told twice"), "nothing changes");
    assert_eq!(members::standing(&mut conn, programme, loser).await.expect("read"), expected);
    assert_eq!(members::standing(&mut conn, programme, MemberId::new()).await.expect("read"), Standing::default());
    assert_eq!(members::standing(&mut conn, ProgrammeId::new(), member).await.expect("read"), Standing::default());
}

#[tokio::test]
async fn who_is_let_go_is_whoever_was_stopped_and_of_whom_nothing_was_told_meanwhile() {
    let database = service::database(&mini::schema()).await;
    let mut conn = database.admin.acquire().await.expect("a connection");
    let programme = ProgrammeId::new();
    let [suspended, withdrew, told, part] = [(); 4].map(|()| MemberId::new());
    members::put_suspended(&mut conn, programme, suspended, 5, true).await.expect("kept");
    members::put_consent(&mut conn, programme, withdrew, 6, Purpose::Contact, false).await.expect("kept");
    members::put_suspended(&mut conn, programme, told, 7, true).await.expect("kept");
    members::put_suspended(&mut conn, programme, part, 8, false).await.expect("kept");
    let at = |member| Place { programme, member };
    let stopped = members::stopped(&mut conn, Place::FIRST, 10).await.expect("read");
    assert_eq!(stopped, [(at(suspended), 5), (at(withdrew), 6), (at(told), 7)], "in order, and none that takes part");
    assert_eq!(members::stopped(&mut conn, at(suspended), 1).await.expect("read"), [(at(withdrew), 6)]);
    // Between the two somebody else is told of one.
    members::put_suspended(&mut conn, programme, told, 9, true).await.expect("kept");
    let mut let_go = Vec::new();
    for (place, version) in stopped {
        let_go.push(members::let_go(&mut conn, place, version).await.expect("looked at"));
    }
    assert_eq!(let_go, [true, true, false]);
    assert!(members::standing(&mut conn, programme, told).await.expect("read").suspended);
    for member in [suspended, withdrew] {
        assert_eq!(members::standing(&mut conn, programme, member).await.expect("read"), Standing::default());
    }
    // What stopped it is told once more, and what is told next counts.
    assert!(!members::put_suspended(&mut conn, programme, suspended, 5, true).await.expect("not kept"));
    assert!(members::put_suspended(&mut conn, programme, suspended, 7, true).await.expect("kept"));
    assert_eq!(
        members::standing_since(&mut conn, programme, suspended, 6).await.expect("read"),
        Some(Standing::new(true, Vec::new()))
    );
    assert_eq!(members::standing_since(&mut conn, programme, suspended, 7).await.expect("read"), None);
}

/// What a new reader is told first is the last merge of each; the older ones, told after it, never stand.
#[tokio::test]
async fn a_merge_that_was_undone_and_is_told_again_does_not_stand_for_a_moment() {
    let database = service::database(&mini::schema()).await;
    let mut conn = database.admin.acquire().await.expect("a connection");
    let (programme, loser) = (ProgrammeId::new(), MemberId::new());
    let merges =
        [MemberId::new(), MemberId::new()].map(|winner| Merge { programme, id: Uuid::now_v7(), loser, winner, undone: false });
    let undone = merges.map(|merge| Merge { undone: true, ..merge });
    assert!(members::put_merge(&mut conn, &undone[1]).await.expect("kept"));
    for told in [merges[0], undone[0], merges[1], undone[1]] {
        assert!(!members::put_merge(&mut conn, &told).await.expect("not kept"), "{told:?}");
        assert_eq!(members::group(&mut conn, programme, loser).await.expect("read"), [loser]);
    }
}
