//! Whatever the order, the batches and the repetitions: the same rows of three sources end in the same members, whoever owns which field and
//! whomever a source deletes.

use crate::world::{World, at, id, identity};
use koc_proto::koc::registry::v1 as pb;
use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};
use tokio::runtime::Handle;

const PEOPLE: [&str; 3] = ["甲", "乙", "丙"];
const SOURCES: [&str; 3] = ["crm", "shop", "forum"];

/// One row, and where it comes from.
#[derive(Debug, Clone)]
struct Sent {
    source: &'static str,
    row: pb::MemberRow,
}

/// Rows in one order, cut into batches.
#[derive(Debug, Clone)]
struct Delivery {
    rows: Vec<Sent>,
    batch_rows: usize,
}

/// Few values, times and people, so that ties of every kind come up.
fn any_row() -> impl Strategy<Value = Sent> {
    let text = || prop::sample::select(vec!["", "一", "二", "三"]);
    let tags = prop::collection::btree_set(prop::sample::select(vec!["x", "y"]), 0..3);
    let channels = prop::sample::subsequence(vec!["DOUYIN", "WEIBO"], 0..=2).prop_shuffle();
    let consent = prop::option::of(any::<bool>());
    let clear = prop::sample::subsequence(vec!["display_name", "city", "tags", "channels", "consents"], 0..=5);
    let deleted = prop::bool::weighted(0.15);
    let key = (prop::sample::select(SOURCES.to_vec()), prop::sample::select(PEOPLE.to_vec()), 0..3i64);
    (key, text(), text(), tags, channels, consent, clear, deleted).prop_map(
        |(key, name, city, tags, channels, consent, clear, deleted)| {
            let (source, person, second) = key;
            let channel = |platform: &str| pb::Channel { platform: platform.into(), handle: "x".into(), followers: Some(1) };
            let word = |granted| pb::Consent { purpose: pb::ConsentPurpose::Contact.into(), granted };
            let profile = pb::MemberProfile {
                display_name: name.into(),
                city: city.into(),
                tags: tags.into_iter().map(str::to_owned).collect(),
                channels: channels.into_iter().map(channel).collect(),
                consents: consent.into_iter().map(word).collect(),
                ..Default::default()
            };
            let set = |field: &str| match field {
                "display_name" => !profile.display_name.is_empty(),
                "city" => !profile.city.is_empty(),
                "tags" => !profile.tags.is_empty(),
                "channels" => !profile.channels.is_empty(),
                _ => !profile.consents.is_empty(),
            };
            let clear_fields = clear.into_iter().filter(|field| !set(field)).map(str::to_owned).collect();
            let known = pb::MemberRow { external_id: person.into(), source_time: Some(at(second)), ..Default::default() };
            let row = match deleted {
                true => pb::MemberRow { deleted, ..known },
                false => pb::MemberRow { profile: Some(profile), clear_fields, ..known },
            };
            Sent { source, row }
        },
    )
}

/// Some fields belong to a source.
fn any_owners() -> impl Strategy<Value = Vec<(&'static str, &'static str)>> {
    let owner = || prop::option::of(prop::sample::select(SOURCES.to_vec()));
    (owner(), owner()).prop_map(|(name, tags)| {
        [("display_name", name), ("tags", tags)].into_iter().filter_map(|(field, owner)| Some((field, owner?))).collect()
    })
}

/// The same rows twice over: as they come, and each at least once in any order, some of them again.
fn two_deliveries() -> impl Strategy<Value = (Delivery, Delivery)> {
    prop::collection::vec(any_row(), 1..14).prop_flat_map(|rows| {
        let again = prop::sample::subsequence(rows.clone(), 0..=rows.len());
        let all = rows.clone();
        let shuffled = again.prop_map(move |again| all.iter().cloned().chain(again).collect::<Vec<_>>()).prop_shuffle();
        let first = (Just(rows), 1..6usize).prop_map(|(rows, batch_rows)| Delivery { rows, batch_rows });
        let second = (shuffled, 1..6usize).prop_map(|(rows, batch_rows)| Delivery { rows, batch_rows });
        (first, second)
    })
}

/// What two deliveries should agree in: the people with all that is kept of them but their ids, times and versions.
type Kept = Vec<(String, serde_json::Value)>;

/// Delivers into a programme of its own, whose first person is known to all sources.
async fn deliver(world: &World, delivery: &Delivery, owners: &[(&str, &str)]) -> Kept {
    let programme_id = world.another_programme().await;
    for (field, source_system) in owners {
        let request = pb::SetFieldOwnerRequest {
            programme_id: programme_id.clone(),
            request_id: id(),
            field: (*field).into(),
            source_system: (*source_system).into(),
            reason: "theirs".into(),
            etag: String::new(),
        };
        world.field_owners().set_field_owner(request).await.expect("set");
    }
    let known = pb::CreateMemberRequest {
        programme_id: programme_id.clone(),
        request_id: id(),
        profile: Some(Default::default()),
        external_identities: SOURCES.map(|source| identity(source, PEOPLE[0])).to_vec(),
    };
    world.create(known).await.expect("created");
    // Batches have one source each: a batch ends where the source changes, or when it is full.
    for run in delivery.rows.chunk_by(|one, next| one.source == next.source) {
        for batch in run.chunks(delivery.batch_rows) {
            let rows = batch.iter().map(|sent| sent.row.clone()).collect();
            let request =
                pb::BatchUpsertMembersRequest { programme_id: programme_id.clone(), ..world.batch(run[0].source, rows) };
            let results = world.send(request).await;
            assert!(results.iter().all(|result| result.status.is_none()), "{results:?}");
        }
    }
    let sql = "SELECT source_system || ' ' || external_id || ' ' || source_time || ' ' || deleted,
                      to_jsonb(m) - '{programme_id, member_id, version, tier_since, create_time, update_time}'::text[]
               FROM external_identity JOIN member AS m USING (programme_id, member_id)
               WHERE programme_id = $1::uuid AND source_time IS NOT NULL
               UNION ALL
               SELECT source_system || ' ' || external_id || ' ' || source_time || ' is nobody', '{}'
               FROM identity_tombstone WHERE programme_id = $1::uuid
               ORDER BY 1";
    sqlx::query_as(sql).bind(programme_id).fetch_all(&world.registry.database.admin).await.expect("members")
}

#[tokio::test(flavor = "multi_thread")]
async fn any_shuffle_split_and_repetition_of_rows_from_three_sources_ends_in_the_same_members() {
    let world = World::new().await;
    let config = Config { cases: 12, failure_persistence: None, ..Config::default() };
    let checked = tokio::task::block_in_place(|| {
        TestRunner::new(config).run(&(two_deliveries(), any_owners()), |((one, other), owners)| {
            let both = async { tokio::join!(deliver(&world, &one, &owners), deliver(&world, &other, &owners)) };
            let (one, other) = Handle::current().block_on(both);
            prop_assert_eq!(one, other);
            Ok(())
        })
    });
    if let Err(failure) = checked {
        panic!("{failure}");
    }
}
