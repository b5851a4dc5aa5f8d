//! A registry with a programme, and short ways to do what every test does.

use koc_chassis::telemetry::Metrics;
use koc_proto::koc::{feed::v1::Change, registry::v1 as pb};
use koc_registry::config::ErasureConfig;
use koc_tests::{
    service::{self, Running, ServiceDatabase, TestChannel},
    token, wait,
};
use prost::Message;
use std::time::{Duration, UNIX_EPOCH};
use tonic::{Code, Status};

pub use koc_tests::answer::{fact, id, refused, rule, violations};

pub use pb::SyncOutcome as Synced;

pub type Programmes = pb::programme_service_client::ProgrammeServiceClient<TestChannel>;
pub type Members = pb::member_service_client::MemberServiceClient<TestChannel>;
pub type Sync = pb::sync_service_client::SyncServiceClient<TestChannel>;
pub type SyncRuns = pb::sync_run_service_client::SyncRunServiceClient<TestChannel>;
pub type MemberImports = pb::member_import_service_client::MemberImportServiceClient<TestChannel>;
pub type FieldOwners = pb::field_owner_service_client::FieldOwnerServiceClient<TestChannel>;
pub type Tiers = pb::tier_service_client::TierServiceClient<TestChannel>;
pub type TierPolicies = pb::tier_policy_service_client::TierPolicyServiceClient<TestChannel>;
pub type Values = pb::value_profile_service_client::ValueProfileServiceClient<TestChannel>;
pub type Points = pb::points_service_client::PointsServiceClient<TestChannel>;
pub type Badges = pb::badge_service_client::BadgeServiceClient<TestChannel>;
pub type Erasures = pb::erasure_service_client::ErasureServiceClient<TestChannel>;
pub type Honours = pb::honour_service_client::HonourServiceClient<TestChannel>;
pub type Feed = pb::feed_service_client::FeedServiceClient<TestChannel>;
pub type MemberFeed = pb::member_feed_service_client::MemberFeedServiceClient<TestChannel>;

/// How long something may take that happens by itself.
pub const PATIENCE: Duration = Duration::from_secs(20);
pub const DAY: Duration = Duration::from_secs(24 * 60 * 60);

pub struct World {
    pub registry: Running,
    pub programme: String,
    channel: TestChannel,
}

/// A time some seconds after a day long past.
pub fn at(second: i64) -> prost_types::Timestamp {
    prost_types::Timestamp { seconds: 1_700_000_000 + second, nanos: 0 }
}

/// So long after now, by the machine's clock.
pub fn ahead(by: Duration) -> prost_types::Timestamp {
    prost_types::Timestamp::from(UNIX_EPOCH + UNIX_EPOCH.elapsed().expect("the clock is past 1970") + by)
}

impl World {
    pub async fn new() -> Self {
        let registry = serve(service::database(&koc_registry::SCHEMA).await).await;
        let world = Self::of(registry, id());
        world.programmes().create_programme(programme_request(&world.programme)).await.expect("a programme");
        world
    }

    /// A registry with a programme that it may have already, or not.
    pub fn of(registry: Running, programme: String) -> Self {
        Self { channel: registry.channel(), registry, programme }
    }

    /// Another programme of the same registry.
    pub async fn another_programme(&self) -> String {
        let programme = id();
        self.programmes().create_programme(programme_request(&programme)).await.expect("a programme");
        programme
    }

    pub fn programmes(&self) -> Programmes {
        Programmes::new(self.channel.clone())
    }

    pub fn members(&self) -> Members {
        Members::new(self.channel.clone())
    }

    pub fn sync(&self) -> Sync {
        Sync::new(self.channel.clone())
    }

    pub fn sync_runs(&self) -> SyncRuns {
        SyncRuns::new(self.channel.clone())
    }

    pub fn imports(&self) -> MemberImports {
        MemberImports::new(self.channel.clone())
    }

    pub fn field_owners(&self) -> FieldOwners {
        FieldOwners::new(self.channel.clone())
    }

    pub fn tiers(&self) -> Tiers {
        Tiers::new(self.channel.clone())
    }

    pub fn tier_policies(&self) -> TierPolicies {
        TierPolicies::new(self.channel.clone())
    }

    /// The same, as somebody else: who may bring into force what the tester wrote.
    pub fn approver(&self) -> TierPolicies {
        TierPolicies::new(self.registry.channel_with(Some(token::all("tests")), Some("approver".into())))
    }

    pub fn draft_request(&self, policy: pb::TierPolicy, reason: &str) -> pb::CreateTierPolicyDraftRequest {
        let (programme_id, reason) = (self.programme.clone(), reason.to_owned());
        pb::CreateTierPolicyDraftRequest { programme_id, request_id: id(), policy: Some(policy), reason }
    }

    pub async fn draft(&self, policy: pb::TierPolicy) -> Result<pb::TierPolicyDraft, Status> {
        let request = self.draft_request(policy, "from this season on");
        Ok(self.tier_policies().create_tier_policy_draft(request).await?.into_inner().draft.unwrap_or_default())
    }

    /// At once.
    pub fn activate_request(&self, draft: &pb::TierPolicyDraft) -> pb::ActivateTierPolicyDraftRequest {
        pb::ActivateTierPolicyDraftRequest {
            programme_id: self.programme.clone(),
            request_id: id(),
            draft_id: draft.draft_id.clone(),
            etag: draft.etag.clone(),
            effective_time: None,
            reason: "looked at".into(),
        }
    }

    /// Brings rules into force; gives their version.
    pub async fn policy(&self, policy: pb::TierPolicy) -> i32 {
        let draft = self.draft(policy).await.expect("a draft");
        let made =
            self.approver().activate_tier_policy_draft(self.activate_request(&draft)).await.expect("a version").into_inner();
        made.version.unwrap_or_default().policy.unwrap_or_default().version
    }

    pub fn values(&self) -> Values {
        Values::new(self.channel.clone())
    }

    pub fn points(&self) -> Points {
        Points::new(self.channel.clone())
    }

    pub fn badges(&self) -> Badges {
        Badges::new(self.channel.clone())
    }

    pub fn honours(&self) -> Honours {
        Honours::new(self.channel.clone())
    }

    pub fn erasures(&self) -> Erasures {
        Erasures::new(self.channel.clone())
    }

    pub fn feed(&self) -> Feed {
        Feed::new(self.channel.clone())
    }

    pub fn follow(&self) -> MemberFeed {
        MemberFeed::new(self.channel.clone())
    }

    pub fn create_request(&self, profile: pb::MemberProfile) -> pb::CreateMemberRequest {
        pb::CreateMemberRequest {
            programme_id: self.programme.clone(),
            request_id: id(),
            profile: Some(profile),
            external_identities: Vec::new(),
        }
    }

    pub async fn create(&self, request: pb::CreateMemberRequest) -> Result<pb::Member, Status> {
        Ok(self.members().create_member(request).await?.into_inner().member.unwrap_or_default())
    }

    /// A member of whom nothing is known but this.
    pub async fn member(&self, profile: pb::MemberProfile) -> pb::Member {
        self.create(self.create_request(profile)).await.expect("a member")
    }

    pub async fn get(&self, member_id: &str) -> Result<pb::Member, Status> {
        let request = pb::GetMemberRequest { programme_id: self.programme.clone(), member_id: member_id.to_owned() };
        Ok(self.members().get_member(request).await?.into_inner().member.unwrap_or_default())
    }

    pub async fn lookup(&self, source_system: &str, external_id: &str) -> Result<pb::Member, Status> {
        let external_identity = Some(identity(source_system, external_id));
        let request = pb::LookupMemberRequest { programme_id: self.programme.clone(), external_identity };
        Ok(self.members().lookup_member(request).await?.into_inner().member.unwrap_or_default())
    }

    /// An update of these fields, whatever version the member has.
    pub fn update_request(&self, member_id: &str, profile: pb::MemberProfile, paths: &[&str]) -> pb::UpdateMemberRequest {
        pb::UpdateMemberRequest {
            programme_id: self.programme.clone(),
            request_id: id(),
            member_id: member_id.to_owned(),
            profile: Some(profile),
            trust_level: 0,
            update_mask: Some(prost_types::FieldMask { paths: paths.iter().map(|path| (*path).to_owned()).collect() }),
            etag: String::new(),
        }
    }

    pub async fn update(&self, request: pb::UpdateMemberRequest) -> Result<pb::Member, Status> {
        Ok(self.members().update_member(request).await?.into_inner().member.unwrap_or_default())
    }

    pub fn batch(&self, source_system: &str, rows: Vec<pb::MemberRow>) -> pb::BatchUpsertMembersRequest {
        let (programme_id, source_system) = (self.programme.clone(), source_system.to_owned());
        pb::BatchUpsertMembersRequest { programme_id, source_system, rows, validate_only: false }
    }

    pub async fn send(&self, request: pb::BatchUpsertMembersRequest) -> Vec<pb::MemberRowResult> {
        self.sync().batch_upsert_members(request).await.expect("the batch is applied").into_inner().results
    }

    /// Brings rows in from the system `crm`.
    pub async fn upsert(&self, rows: Vec<pb::MemberRow>) -> Vec<pb::MemberRowResult> {
        self.send(self.batch("crm", rows)).await
    }

    /// All of the programme's changes, in order, once all that is committed is published.
    pub async fn changes(&self) -> Vec<Change> {
        wait::until("all facts to be published", PATIENCE, async || {
            (self.count("SELECT count(*) FROM outbox").await == 0).then_some(())
        })
        .await;
        let request = pb::ListChangesRequest { programme_id: self.programme.clone(), after_position: 0, page_size: 1_000 };
        self.feed().list_changes(request).await.expect("a page").into_inner().changes
    }

    /// What was told of a member's changes, in order.
    pub async fn told(&self, member_id: &str) -> Vec<pb::MemberChanged> {
        let changes = self.changes().await;
        changes.iter().filter(|change| change.subject_id == member_id).filter_map(fact).collect()
    }

    pub async fn count(&self, sql: &'static str) -> i64 {
        sqlx::query_scalar(sql).fetch_one(&self.registry.database.admin).await.expect("a number")
    }

    /// Waits until a call of the service waits for a row that somebody else holds.
    pub async fn wait_for_a_waiting_call(&self) {
        wait::until("a call to wait for a row", PATIENCE, async || {
            let sql = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
            (self.count(sql).await > 0).then_some(())
        })
        .await;
    }
}

pub async fn serve(database: ServiceDatabase) -> Running {
    service::start_on(service::free_address(), database, |common, stop| {
        let erasure =
            ErasureConfig { suppression_keys_file: Some(token::suppression_keys_file().to_owned()), ..Default::default() };
        koc_registry::serve(koc_registry::Config { erasure, ..koc_registry::Config::from(common) }, Metrics::new(), stop)
    })
    .await
}

pub fn programme_request(programme_id: &str) -> pb::CreateProgrammeRequest {
    pb::CreateProgrammeRequest {
        programme_id: programme_id.to_owned(),
        request_id: id(),
        display_name: "车主圈".into(),
        currency_code: "CNY".into(),
        time_zone: "Asia/Shanghai".into(),
    }
}

pub fn identity(source_system: &str, external_id: &str) -> pb::ExternalIdentity {
    pb::ExternalIdentity { source_system: source_system.into(), external_id: external_id.into() }
}

pub fn named(display_name: &str) -> pb::MemberProfile {
    pb::MemberProfile { display_name: display_name.into(), ..Default::default() }
}

pub fn in_city(city: &str) -> pb::MemberProfile {
    pb::MemberProfile { city: city.into(), ..Default::default() }
}

pub fn consents(purpose: pb::ConsentPurpose, granted: bool) -> pb::MemberProfile {
    pb::MemberProfile { consents: vec![pb::Consent { purpose: purpose.into(), granted }], ..Default::default() }
}

/// Something in every field, as it is kept: sets in order.
pub fn full_profile() -> pb::MemberProfile {
    pb::MemberProfile {
        display_name: "山间来信 🚙".into(),
        email: "letters@example.com".into(),
        phone: "+8613900000000".into(),
        region_code: "CN-GD".into(),
        city: "广州".into(),
        channels: vec![
            pb::Channel { platform: "XIAOHONGSHU".into(), handle: "山间来信".into(), followers: Some(12_000) },
            pb::Channel { platform: "DOUYIN".into(), handle: String::new(), followers: None },
        ],
        vehicles: vec![pb::Vehicle { model: "远行 E5".into(), vin: "LX100000000000001".into() }],
        motivations: vec![pb::Motivation::Helping.into(), pb::Motivation::Gathering.into()],
        tags: vec!["露营".into(), "首批车主".into()],
        consents: vec![
            pb::Consent { purpose: pb::ConsentPurpose::Participation.into(), granted: true },
            pb::Consent { purpose: pb::ConsentPurpose::Contact.into(), granted: false },
        ],
    }
}

pub fn row(external_id: &str, second: i64, profile: pb::MemberProfile) -> pb::MemberRow {
    pb::MemberRow {
        external_id: external_id.into(),
        source_time: Some(at(second)),
        profile: Some(profile),
        clear_fields: Vec::new(),
        deleted: false,
    }
}

pub fn outcomes(results: &[pb::MemberRowResult]) -> Vec<Synced> {
    results.iter().map(pb::MemberRowResult::outcome).collect()
}

/// The violations of a rejected row as (field, rule).
#[track_caller]
pub fn row_violations(result: &pb::MemberRowResult) -> Vec<(String, String)> {
    assert_eq!((result.outcome(), result.member_id.as_str()), (Synced::Rejected, ""));
    let status = result.status.as_ref().expect("a rejected row says why");
    assert_eq!(status.code, i32::from(Code::InvalidArgument));
    let any = status.details.iter().find(|any| any.type_url.ends_with("google.rpc.BadRequest")).expect("violations");
    let request = tonic_types::pb::BadRequest::decode(any.value.as_slice()).expect("a BadRequest");
    request.field_violations.into_iter().map(|v| (v.field, rule(&v.description))).collect()
}

/// Pairs to compare violations with.
pub fn pairs<const N: usize>(pairs: [(&str, &str); N]) -> Vec<(String, String)> {
    pairs.map(|(field, rule)| (field.to_owned(), rule.to_owned())).to_vec()
}
