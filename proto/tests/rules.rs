//! What the generated checks find in real messages, and what they never say.

use koc_proto::{
    koc::registry::v1 as pb,
    rules::{Rules, Violation},
};
use prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, ReflectMessage, Value};
use uuid::Uuid;

fn create_member(profile: pb::MemberProfile) -> pb::CreateMemberRequest {
    pb::CreateMemberRequest {
        programme_id: Uuid::now_v7().to_string(),
        request_id: Uuid::new_v4().to_string(),
        profile: Some(profile),
        external_identities: Vec::new(),
    }
}

fn found(message: &impl Rules) -> Vec<(String, String)> {
    message.violations().into_iter().map(|Violation { field, rule, .. }| (field, rule)).collect()
}

fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    expected.iter().map(|(field, rule)| ((*field).to_owned(), (*rule).to_owned())).collect()
}

#[test]
fn a_good_message_has_no_violation() {
    let profile = pb::MemberProfile {
        display_name: "林晓梅".into(),
        email: "lin@example.com".into(),
        phone: "+8613800138000".into(),
        region_code: "CN-SH".into(),
        channels: vec![pb::Channel { platform: "WEIBO".into(), handle: "lin".into(), followers: Some(0) }],
        motivations: vec![pb::Motivation::Helping.into(), pb::Motivation::Reward.into()],
        tags: vec!["owner".into()],
        ..Default::default()
    };
    assert_eq!(found(&create_member(profile)), []);
    assert_eq!(found(&create_member(pb::MemberProfile::default())), [], "what may be left out may be empty");
}

#[test]
fn every_violation_is_found_at_once_with_the_path_to_its_field() {
    let profile = pb::MemberProfile {
        display_name: "x".repeat(201),
        email: "no address".into(),
        region_code: "Shanghai".into(),
        channels: vec![
            pb::Channel { platform: "WEIBO".into(), ..Default::default() },
            pb::Channel { platform: "weibo".into(), followers: Some(-1), ..Default::default() },
        ],
        motivations: vec![0, 99, 1, 1],
        tags: vec!["a".into(), String::new(), "to\0rn".into()],
        consents: vec![pb::Consent::default()],
        ..Default::default()
    };
    let request = pb::CreateMemberRequest {
        programme_id: String::new(),
        request_id: Uuid::new_v4().simple().to_string(),
        external_identities: vec![pb::ExternalIdentity { source_system: "HubSpot".into(), external_id: String::new() }],
        ..create_member(profile)
    };
    let expected = pairs(&[
        ("programme_id", "string.uuid"),
        ("request_id", "string.uuid"),
        ("profile.display_name", "string.max_len"),
        ("profile.email", "string.pattern"),
        ("profile.region_code", "string.pattern"),
        ("profile.channels[1].platform", "string.pattern"),
        ("profile.channels[1].followers", "int.gte"),
        ("profile.motivations", "repeated.unique"),
        ("profile.motivations[0]", "enum.not_in"),
        ("profile.motivations[1]", "enum.defined_only"),
        ("profile.tags[1]", "string.min_len"),
        ("profile.tags[2]", "string.no_nul"),
        ("profile.consents[0].purpose", "enum.not_in"),
        ("external_identities[0].source_system", "string.pattern"),
        ("external_identities[0].external_id", "string.min_len"),
    ]);
    assert_eq!(found(&request), expected);
}

#[test]
fn a_required_message_is_missed_and_lengths_count_characters() {
    let without = pb::CreateMemberRequest { profile: None, ..create_member(pb::MemberProfile::default()) };
    assert_eq!(found(&without), pairs(&[("profile", "required")]));
    let name = |length| create_member(pb::MemberProfile { display_name: "梅".repeat(length), ..Default::default() });
    assert_eq!(found(&name(200)), []);
    assert_eq!(found(&name(201)), pairs(&[("profile.display_name", "string.max_len")]));
}

#[test]
fn numbers_hold_their_bounds_and_nan_breaks_them() {
    let score = |score, confidence| pb::ValueScore { value_type: 1, score, confidence, ..Default::default() };
    assert_eq!(found(&score(0.0, 1.0)), []);
    assert_eq!(found(&score(-0.1, 1.1)), pairs(&[("score", "double.gte"), ("confidence", "double.lte")]));
    let nan = found(&score(f64::NAN, 0.5));
    assert!(nan.iter().all(|(field, _)| field == "score") && !nan.is_empty(), "{nan:?}");
    let page = |page_size| pb::ListMembersRequest { programme_id: Uuid::now_v7().to_string(), page_size, ..Default::default() };
    assert_eq!((found(&page(0)), found(&page(1000))), (vec![], vec![]));
    assert_eq!(found(&page(-1)), pairs(&[("page_size", "int.gte")]));
    assert_eq!(found(&page(1001)), pairs(&[("page_size", "int.lte")]));
}

#[test]
fn no_text_of_a_caller_is_repeated_to_it() {
    let secret = "geheim\0";
    let profile = pb::MemberProfile {
        display_name: secret.repeat(200),
        email: secret.into(),
        phone: secret.into(),
        region_code: secret.into(),
        tags: vec![secret.repeat(20)],
        ..Default::default()
    };
    let request = pb::CreateMemberRequest { programme_id: secret.into(), request_id: secret.into(), ..create_member(profile) };
    let violations = request.violations();
    assert!(violations.len() >= 7, "{violations:?}");
    let status = koc_proto::codec::invalid("registry.koc", violations);
    assert!(!format!("{status:?}").contains("geheim"), "{status:?}");
}

#[test]
fn an_answer_lists_a_hundred_violations_and_not_a_million() {
    let request = pb::BatchGetMembersRequest { programme_id: Uuid::now_v7().to_string(), member_ids: vec![String::new(); 1000] };
    assert_eq!(request.violations().len(), 100);
}

/// A message with every field set, as deep as three levels; `mark` goes into every text.
fn filled(descriptor: &MessageDescriptor, mark: &str, depth: usize) -> DynamicMessage {
    let mut message = DynamicMessage::new(descriptor.clone());
    for field in descriptor.fields() {
        let value = match field.kind() {
            Kind::Message(inner) if depth < 4 && inner.package_name().starts_with("koc.") => {
                Value::Message(filled(&inner, mark, depth + 1))
            }
            Kind::String => Value::String(mark.to_owned()),
            Kind::Bytes => Value::Bytes(mark.as_bytes().to_vec().into()),
            Kind::Bool => Value::Bool(true),
            Kind::Int32 => Value::I32(7),
            Kind::Int64 => Value::I64(7),
            Kind::Double => Value::F64(0.5),
            Kind::Enum(_) => Value::EnumNumber(1),
            _ => continue,
        };
        message.set_field(&field, if field.is_list() { Value::List(vec![value]) } else { value });
    }
    message
}

/// Empties the fields marked personal, by the descriptors alone.
fn strip(message: &mut DynamicMessage, personal: &dyn Fn(&FieldDescriptor) -> bool) {
    for field in message.descriptor().fields() {
        if personal(&field) {
            message.clear_field(&field);
        } else if matches!(field.kind(), Kind::Message(_)) && message.has_field(&field) {
            match message.get_field_mut(&field) {
                Value::Message(inner) => strip(inner, personal),
                Value::List(items) => items.iter_mut().filter_map(Value::as_message_mut).for_each(|m| strip(m, personal)),
                _ => {}
            }
        }
    }
}

/// Strips a filled message by the generated code; it must come out as the descriptors say.
fn strips_what_is_marked<M: Rules + Message + Default>() {
    let pool = DescriptorPool::decode(koc_proto::FILE_DESCRIPTOR_SET).expect("our own descriptors");
    let option = pool.get_extension_by_name("koc.options.v1.personal").expect("is declared");
    let personal = |field: &FieldDescriptor| field.options().get_extension(&option).as_bool() == Some(true);
    let descriptor = pool.get_message_by_name(M::NAME).expect("one of ours");
    let mut expected = filled(&descriptor, "personal", 0);
    let mut message = M::decode(expected.encode_to_vec().as_slice()).expect("the same shape");
    message.strip_personal();
    strip(&mut expected, &personal);
    let stripped = DynamicMessage::decode(descriptor, message.encode_to_vec().as_slice()).expect("the same shape");
    assert_eq!(stripped, expected, "{}", M::NAME);
}

#[test]
fn exactly_the_marked_fields_are_emptied() {
    strips_what_is_marked::<pb::CreateMemberRequest>();
    strips_what_is_marked::<pb::CreateMemberResponse>();
    strips_what_is_marked::<pb::UpdateMemberResponse>();
    strips_what_is_marked::<pb::ListMembersResponse>();
    strips_what_is_marked::<pb::BatchGetMembersResponse>();
    strips_what_is_marked::<pb::GetProgrammeResponse>();
    let mut member = pb::Member {
        member_id: "m".into(),
        profile: Some(pb::MemberProfile { display_name: "Lin".into(), region_code: "CN-SH".into(), ..Default::default() }),
        ..Default::default()
    };
    member.strip_personal();
    let profile = member.profile.expect("it stays");
    assert_eq!((member.member_id.as_str(), profile.display_name.as_str(), profile.region_code.as_str()), ("m", "", "CN-SH"));
}

#[test]
fn what_is_marked_is_masked_where_it_says_something_but_for_what_its_method_masks() {
    let history = pb::MemberHistoryEntry {
        actor: "crm".into(),
        reason: "moved".into(),
        fields: vec![pb::FieldChange { path: "tier_id".into(), before: "BASE".into(), after: "CORE".into(), masked: false }],
        ..Default::default()
    };
    let mut masked = history.clone();
    masked.mask_personal();
    assert_eq!(masked, pb::MemberHistoryEntry { reason: "m*".into(), ..history });
    let mut member = pb::Member {
        profile: Some(pb::MemberProfile {
            display_name: "林晓梅".into(),
            email: "lin@example.com".into(),
            region_code: "CN-SH".into(),
            channels: vec![pb::Channel { platform: "WEIBO".into(), handle: "lin".into(), followers: Some(7) }],
            tags: vec!["owner".into(), "a".into()],
            ..Default::default()
        }),
        external_identities: vec![pb::ExternalIdentity { source_system: "crm".into(), external_id: "77".into() }],
        ..Default::default()
    };
    member.mask_personal();
    let expected = pb::MemberProfile {
        display_name: "林*".into(),
        email: "l***@e***.com".into(),
        region_code: "CN-SH".into(),
        channels: vec![pb::Channel { platform: "WEIBO".into(), handle: "l*".into(), followers: Some(7) }],
        tags: vec!["o*".into(), "*".into()],
        ..Default::default()
    };
    assert_eq!(member.profile, Some(expected));
    assert_eq!(member.external_identities[0].external_id, "7*");
}
