//! What is told when a member's word on a purpose changes.

use crate::domain::consent::Purpose;
use koc_chassis::{
    ids::{MemberId, ProgrammeId},
    outbox::NewFact,
};
use koc_proto::koc::registry::v1 as pb;

/// A fact for each purpose that was withdrawn or given by the change that made a version of the member; true for given.
pub fn facts(programme: ProgrammeId, member: MemberId, version: i64, changed: &[(Purpose, bool)]) -> Vec<NewFact> {
    let fact = |&(purpose, granted): &(Purpose, bool)| {
        let purpose = wire(purpose).into();
        let fact = pb::MemberConsentChanged { member_id: member.to_string(), purpose, granted, version };
        NewFact::new(programme, member.0, &fact)
    };
    changed.iter().map(fact).collect()
}

fn wire(purpose: Purpose) -> pb::ConsentPurpose {
    match purpose {
        Purpose::Participation => pb::ConsentPurpose::Participation,
        Purpose::Profiling => pb::ConsentPurpose::Profiling,
        Purpose::ContentUse => pb::ConsentPurpose::ContentUse,
        Purpose::Contact => pb::ConsentPurpose::Contact,
    }
}
