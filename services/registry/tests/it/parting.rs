//! What stopped while two members were one stops for both when they are parted, and what consents are told.

use crate::{
    badge::points,
    world::{World, fact, id, named},
};
use koc_proto::koc::registry::v1::{self as pb, ConsentPurpose as Purpose};

impl World {
    async fn consent(&self, member: &str, words: &[(Purpose, bool)]) {
        let word = |&(purpose, granted): &(Purpose, bool)| pb::Consent { purpose: purpose.into(), granted };
        let profile = pb::MemberProfile { consents: words.iter().map(word).collect(), ..Default::default() };
        self.update(self.update_request(member, profile, &["profile.consents"])).await.expect("updated");
    }

    /// What was told of a member's consents, in order: for what, given or not, and its version.
    async fn told_consents(&self, member: &str) -> Vec<(Purpose, bool, i64)> {
        let changes = self.changes().await;
        let mine = changes.iter().filter(|change| change.subject_id == member);
        mine.filter_map(fact::<pb::MemberConsentChanged>).map(|told| (told.purpose(), told.granted, told.version)).collect()
    }
}

fn withdrawn(member: &pb::Member) -> Vec<Purpose> {
    let consents = &member.profile.as_ref().expect("a profile").consents;
    consents.iter().filter(|consent| !consent.granted).map(pb::Consent::purpose).collect()
}

#[tokio::test]
async fn a_consent_is_told_when_it_is_withdrawn_and_when_it_is_given_again_whoever_writes_it() {
    let world = World::new().await;
    let word = |purpose: Purpose, granted| pb::Consent { purpose: purpose.into(), granted };
    let profile = pb::MemberProfile { consents: vec![word(Purpose::Contact, false)], ..named("何") };
    let created = world.member(profile).await.member_id;
    assert_eq!(world.told_consents(&created).await, [(Purpose::Contact, false, 1)]);
    world.consent(&created, &[(Purpose::Contact, true), (Purpose::Profiling, true)]).await;
    world.consent(&created, &[(Purpose::Contact, true), (Purpose::Profiling, false)]).await;
    let expected = [(Purpose::Contact, false, 1), (Purpose::Contact, true, 2), (Purpose::Profiling, false, 3)];
    assert_eq!(world.told_consents(&created).await, expected, "joining was the consent to profiling");

    let row = |consents: Vec<pb::Consent>, at| crate::world::row("7", at, pb::MemberProfile { consents, ..named("李") });
    let synced = world.upsert(vec![row(vec![word(Purpose::Participation, false)], 10)]).await[0].member_id.clone();
    world.upsert(vec![row(vec![word(Purpose::Participation, false)], 20)]).await;
    world.upsert(vec![row(vec![word(Purpose::Participation, true)], 30)]).await;
    let expected = [(Purpose::Participation, false, 1), (Purpose::Participation, true, 2)];
    assert_eq!(world.told_consents(&synced).await, expected);
}

#[tokio::test]
async fn a_suspension_and_withdrawn_consents_of_the_time_together_hold_for_both_when_they_are_parted() {
    let world = World::new().await;
    let (winner, loser) = (world.member(named("何")).await.member_id, world.member(named("何生")).await.member_id);
    world.consent(&winner, &[(Purpose::Contact, false)]).await;
    world.merge(&winner, &loser).await.expect("merged");
    world.consent(&loser, &[(Purpose::Contact, false), (Purpose::Profiling, false)]).await;
    let suspend = pb::SuspendMemberRequest {
        programme_id: world.programme.clone(),
        request_id: id(),
        member_id: loser.clone(),
        reason: "刷单".into(),
        etag: String::new(),
    };
    world.members().suspend_member(suspend).await.expect("suspended");
    let (parted_winner, parted) = world.unmerge(&loser).await.expect("parted");

    // What the winner had withdrawn before is its own; what was withdrawn since, nobody said for whom.
    assert_eq!(withdrawn(&parted_winner), [Purpose::Profiling, Purpose::Contact]);
    assert_eq!(withdrawn(&parted), [Purpose::Profiling]);
    assert_eq!((parted_winner.state(), parted.state()), (pb::MemberState::Suspended, pb::MemberState::Suspended));
    let told = world.told_consents(&loser).await;
    assert_eq!(told.iter().map(|(purpose, granted, _)| (*purpose, *granted)).collect::<Vec<_>>(), [(Purpose::Profiling, false)]);
    let changes = world.changes().await;
    let mine: Vec<_> = changes.iter().filter(|change| change.subject_id == loser).collect();
    let place = |found: Option<usize>| found.expect("it is told");
    let parting = place(mine.iter().position(|change| fact::<pb::MemberUnmerged>(change).is_some()));
    let suspended = place(mine.iter().position(|change| fact::<pb::MemberSuspended>(change).is_some()));
    assert!(parting < suspended, "it is suspended as a member of its own");
    assert_eq!(world.told(&loser).await.pop().expect("a change").changed_fields, ["profile.consents", "state"]);
    let request =
        pb::ListMemberHistoryRequest { programme_id: world.programme.clone(), member_id: loser.clone(), ..Default::default() };
    let history = world.members().list_member_history(request).await.expect("a page").into_inner().changes;
    let paths: Vec<_> = history[0].fields.iter().map(|field| field.path.as_str()).collect();
    assert_eq!((history[0].kind(), paths), (pb::MemberChangeKind::Unmerged, vec!["profile.consents.PROFILING", "state"]));
}

#[tokio::test]
async fn nothing_is_inherited_by_a_loser_when_nothing_stopped_since() {
    let world = World::new().await;
    let (winner, loser) = (world.member(named("何")).await.member_id, world.member(named("何生")).await.member_id);
    world.consent(&winner, &[(Purpose::Contact, false)]).await;
    world.merge(&winner, &loser).await.expect("merged");
    let before = world.told(&loser).await.len();
    let (_, parted) = world.unmerge(&loser).await.expect("parted");
    assert_eq!((withdrawn(&parted), parted.state()), (Vec::new(), pb::MemberState::Active));
    assert_eq!((world.told_consents(&loser).await, world.told(&loser).await.len()), (Vec::new(), before));
}

#[tokio::test]
async fn a_badge_that_a_merge_brought_and_took_away_can_be_earned() {
    let world = World::new().await;
    let (winner, loser) = (world.member(named("何")).await.member_id, world.member(named("何生")).await.member_id);
    world.badge("HUNDRED", vec![points(100)]).await;
    world.earn(&loser, 100).await;
    let held = async |member: &str| {
        let awards = world.awards(member).await.into_iter().filter(|award| award.revoke_time.is_none());
        awards.map(|award| (award.badge_id, award.by_rule)).collect::<Vec<_>>()
    };
    let hundred = |by_rule: bool| [("HUNDRED".to_owned(), by_rule)];
    for _ in 0..2 {
        world.merge(&winner, &loser).await.expect("merged");
        assert_eq!(held(&winner).await, hundred(false));
        world.earn(&winner, 1).await;
        assert_eq!(held(&winner).await, hundred(false), "once");
        world.unmerge(&loser).await.expect("parted");
        assert_eq!((held(&winner).await, held(&loser).await), (Vec::new(), hundred(true).into()));
    }
    world.earn(&winner, 98).await;
    assert_eq!(held(&winner).await, hundred(true));
}
