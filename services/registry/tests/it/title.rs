//! Titles.

use crate::world::{World, fact, id, in_city, pairs, refused, violations};
use koc_proto::koc::registry::v1 as pb;
use tonic::Code;

impl World {
    async fn titles(&self, titles: &[(&str, i64)]) -> pb::CreateTitleSetResponse {
        self.honours().create_title_set(self.titles_request(titles)).await.expect("titles").into_inner()
    }
}

fn ids(titles: &[pb::Title]) -> Vec<&str> {
    titles.iter().map(|title| title.title_id.as_str()).collect()
}

#[tokio::test]
async fn a_title_follows_from_lifetime_points_and_new_titles_hold_for_everybody_at_once() {
    let world = World::new().await;
    let member = world.member(in_city("广州")).await.member_id;
    let titled = async || {
        let standing = world.standing(&member).await;
        let id = |title: Option<pb::Title>| title.map(|title| title.title_id).unwrap_or_default();
        (id(standing.title), id(standing.next_title), standing.points_to_next_title)
    };
    assert_eq!(titled().await, (String::new(), String::new(), 0));
    let set = world.titles(&[("PIONEER", 100), ("FRIEND", 10)]).await;
    assert_eq!((set.version, ids(&set.titles)), (1, vec!["FRIEND", "PIONEER"]));
    assert_eq!(titled().await, (String::new(), "FRIEND".into(), 10));
    let first = world.earn(&member, 99).await;
    assert_eq!(titled().await, ("FRIEND".into(), "PIONEER".into(), 1));
    world.earn(&member, 1).await;
    assert_eq!(titled().await, ("PIONEER".into(), String::new(), 0));
    // What is redeemed was earned all the same; what is reversed was not.
    world.redeem(&member, 50).await.expect("there");
    assert_eq!(titled().await, ("PIONEER".into(), String::new(), 0));
    world.reverse(&first.entry_id, None).await.expect("taken back");
    assert_eq!(titled().await, (String::new(), "FRIEND".into(), 9));
    assert_eq!(world.titles(&[("STARTER", 0), ("STAR", 2)]).await.version, 2);
    assert_eq!(titled().await, ("STARTER".into(), "STAR".into(), 1));

    let changes = world.changes().await;
    let told: Vec<pb::MemberTitleChanged> = changes.iter().filter_map(fact).collect();
    let told: Vec<_> = told.iter().map(|f| (f.from_title_id.as_str(), f.to_title_id.as_str(), f.title_set_version)).collect();
    assert_eq!(told, [("", "FRIEND", 1), ("FRIEND", "PIONEER", 1), ("PIONEER", "", 1)]);
    let sets: Vec<pb::TitleSetCreated> = changes.iter().filter_map(fact).collect();
    assert_eq!(sets.iter().map(|set| set.version).collect::<Vec<_>>(), [1, 2]);
}

#[tokio::test]
async fn titles_that_stand_twice_are_named_and_a_retry_makes_no_other_version() {
    let world = World::new().await;
    let broken = world.titles_request(&[("A", 1), ("A", 1)]);
    let expected = pairs([("titles[1].title_id", "TITLE_REPEATED"), ("titles[1].min_lifetime_points", "THRESHOLD_REPEATED")]);
    assert_eq!(violations(world.honours().create_title_set(broken).await), expected);
    let request = world.titles_request(&[("A", 1)]);
    for _attempt in 0..2 {
        let answer = world.honours().create_title_set(request.clone()).await.expect("titles").into_inner();
        assert_eq!(answer.version, 1);
    }
    let list = async |programme_id: String| world.honours().list_titles(pb::ListTitlesRequest { programme_id }).await;
    let listed = list(world.programme.clone()).await.expect("titles").into_inner();
    assert_eq!((listed.version, ids(&listed.titles)), (1, vec!["A"]));
    refused(list(id()).await, Code::NotFound, "PROGRAMME_NOT_FOUND");
    let nowhere = pb::CreateTitleSetRequest { programme_id: id(), ..world.titles_request(&[]) };
    refused(world.honours().create_title_set(nowhere).await, Code::NotFound, "PROGRAMME_NOT_FOUND");
}
