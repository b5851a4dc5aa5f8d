//! Short ways to give and take honours, and what must hold of them at any time.

use crate::world::{World, id};
use koc_chassis::postgres::Db;
use koc_proto::koc::registry::v1 as pb;
use tonic::Status;

impl World {
    pub fn earn_request(&self, member_id: &str, amount: i64) -> pb::EarnPointsRequest {
        pb::EarnPointsRequest {
            programme_id: self.programme.clone(),
            request_id: id(),
            member_id: member_id.into(),
            source: format!("assignment/{}", id()),
            reason_code: "TASK_COMPLETED".into(),
            amount,
            expire_time: None,
        }
    }

    pub async fn earn_with(&self, request: pb::EarnPointsRequest) -> Result<pb::PointsEntry, Status> {
        Ok(self.points().earn_points(request).await?.into_inner().entry.expect("an entry"))
    }

    pub async fn earn(&self, member_id: &str, amount: i64) -> pb::PointsEntry {
        self.earn_with(self.earn_request(member_id, amount)).await.expect("earned")
    }

    pub fn redeem_request(&self, member_id: &str, amount: i64) -> pb::RedeemPointsRequest {
        pb::RedeemPointsRequest {
            programme_id: self.programme.clone(),
            request_id: id(),
            member_id: member_id.into(),
            source: format!("order/{}", id()),
            reason_code: "GIFT".into(),
            amount,
        }
    }

    pub async fn redeem_with(&self, request: pb::RedeemPointsRequest) -> Result<pb::PointsEntry, Status> {
        Ok(self.points().redeem_points(request).await?.into_inner().entry.expect("an entry"))
    }

    pub async fn redeem(&self, member_id: &str, amount: i64) -> Result<pb::PointsEntry, Status> {
        self.redeem_with(self.redeem_request(member_id, amount)).await
    }

    pub fn reverse_request(&self, entry_id: &str, amount: Option<i64>) -> pb::ReversePointsRequest {
        pb::ReversePointsRequest {
            programme_id: self.programme.clone(),
            request_id: id(),
            entry_id: entry_id.into(),
            amount,
            reason: "booked by mistake".into(),
        }
    }

    pub async fn reverse_with(&self, request: pb::ReversePointsRequest) -> Result<pb::PointsEntry, Status> {
        Ok(self.points().reverse_points(request).await?.into_inner().entry.expect("an entry"))
    }

    pub async fn reverse(&self, entry_id: &str, amount: Option<i64>) -> Result<pb::PointsEntry, Status> {
        self.reverse_with(self.reverse_request(entry_id, amount)).await
    }

    pub fn entries_request(&self, member_id: &str) -> pb::ListPointsEntriesRequest {
        let (programme_id, member_id) = (self.programme.clone(), member_id.to_owned());
        pb::ListPointsEntriesRequest { programme_id, member_id, page_size: 1_000, page_token: String::new() }
    }

    /// A member's entries, newest first.
    pub async fn entries(&self, member_id: &str) -> Vec<pb::PointsEntry> {
        let request = self.entries_request(member_id);
        self.points().list_points_entries(request).await.expect("entries").into_inner().entries
    }

    pub fn standing_request(&self, member_id: &str) -> pb::GetStandingRequest {
        pb::GetStandingRequest { programme_id: self.programme.clone(), member_id: member_id.into() }
    }

    pub async fn standing(&self, member_id: &str) -> pb::GetStandingResponse {
        self.honours().get_standing(self.standing_request(member_id)).await.expect("a standing").into_inner()
    }

    pub fn titles_request(&self, titles: &[(&str, i64)]) -> pb::CreateTitleSetRequest {
        let title = |(title_id, min_lifetime_points): &(&str, i64)| pb::Title {
            title_id: (*title_id).into(),
            display_name: format!("头衔 {title_id}"),
            min_lifetime_points: *min_lifetime_points,
        };
        pb::CreateTitleSetRequest {
            programme_id: self.programme.clone(),
            request_id: id(),
            titles: titles.iter().map(title).collect(),
            reason: "a new season".into(),
        }
    }

    pub fn board_request(&self, month: &str) -> pb::ListLeaderboardRequest {
        let (programme_id, month) = (self.programme.clone(), month.to_owned());
        pb::ListLeaderboardRequest { programme_id, month, page_size: 1_000, page_token: String::new() }
    }

    pub fn position_request(&self, member_id: &str, neighbours: i32) -> pb::GetLeaderboardPositionRequest {
        let (programme_id, member_id) = (self.programme.clone(), member_id.to_owned());
        pb::GetLeaderboardPositionRequest { programme_id, member_id, month: String::new(), neighbours }
    }

    pub fn badge_request(&self, badge_id: &str, conditions: Vec<pb::BadgeCondition>) -> pb::CreateBadgeRequest {
        pb::CreateBadgeRequest {
            programme_id: self.programme.clone(),
            request_id: id(),
            badge: Some(pb::Badge {
                badge_id: badge_id.into(),
                display_name: format!("徽章 {badge_id}"),
                conditions,
                ..Default::default()
            }),
            reason: "to be earned from now on".into(),
        }
    }

    pub async fn badge(&self, badge_id: &str, conditions: Vec<pb::BadgeCondition>) -> pb::Badge {
        let request = self.badge_request(badge_id, conditions);
        self.badges().create_badge(request).await.expect("a badge").into_inner().badge.unwrap_or_default()
    }

    pub fn retire_request(&self, badge_id: &str) -> pb::UpdateBadgeRequest {
        pb::UpdateBadgeRequest {
            programme_id: self.programme.clone(),
            request_id: id(),
            badge_id: badge_id.into(),
            badge: Some(pb::Badge { retired: true, ..Default::default() }),
            update_mask: Some(prost_types::FieldMask { paths: vec!["retired".into()] }),
            etag: String::new(),
            reason: "the season is over".into(),
        }
    }

    pub fn award_request(&self, member_id: &str, badge_id: &str) -> pb::AwardBadgeRequest {
        pb::AwardBadgeRequest {
            programme_id: self.programme.clone(),
            request_id: id(),
            member_id: member_id.into(),
            badge_id: badge_id.into(),
            source: format!("event/{}", id()),
            reason: "helped at the meeting".into(),
        }
    }

    pub async fn give(&self, request: pb::AwardBadgeRequest) -> Result<pb::BadgeAward, Status> {
        Ok(self.badges().award_badge(request).await?.into_inner().award.unwrap_or_default())
    }

    pub fn revoke_request(&self, award_id: &str) -> pb::RevokeBadgeRequest {
        let (programme_id, award_id) = (self.programme.clone(), award_id.to_owned());
        pb::RevokeBadgeRequest { programme_id, request_id: id(), award_id, reason: "given to the wrong person".into() }
    }

    pub fn evaluation_request(&self) -> pb::EvaluateBadgesRequest {
        let (programme_id, request_id) = (self.programme.clone(), id());
        pb::EvaluateBadgesRequest { programme_id, request_id, validate_only: false, after_member_id: String::new() }
    }

    pub fn awards_request(&self, member_id: &str) -> pb::ListMemberBadgesRequest {
        let (programme_id, member_id) = (self.programme.clone(), member_id.to_owned());
        pb::ListMemberBadgesRequest { programme_id, member_id, page_size: 0, page_token: String::new() }
    }

    /// A member's awards, newest first.
    pub async fn awards(&self, member_id: &str) -> Vec<pb::BadgeAward> {
        let request = self.awards_request(member_id);
        self.badges().list_member_badges(request).await.expect("awards").into_inner().awards
    }

    /// Another way to the service's database, as another replica has it.
    pub fn replica(&self) -> Db {
        Db::new(&self.registry.database.app_url, "registry", 2).expect("an address")
    }

    /// What holds of all points at any time, though nobody is at work now.
    pub async fn assert_points_add_up(&self) {
        for (what, sql) in [
            (
                "a balance is not the sum of its entries",
                "SELECT count(*) FROM points_account a WHERE balance <> COALESCE((
                     SELECT sum(change) FROM points_entry e WHERE e.programme_id = a.programme_id AND e.member_id = a.member_id), 0)",
            ),
            (
                "a balance is not what is left in the lots",
                "SELECT count(*) FROM points_account a WHERE balance <> COALESCE((
                     SELECT sum(remaining) FROM points_lot l WHERE l.programme_id = a.programme_id AND l.member_id = a.member_id), 0)",
            ),
            (
                "an entry does not follow from the one before",
                "SELECT count(*) FROM (
                     SELECT sequence, balance_after, change,
                            lag(sequence, 1, 0::bigint) OVER w AS sequence_before, lag(balance_after, 1, 0::bigint) OVER w AS before
                     FROM points_entry WINDOW w AS (PARTITION BY programme_id, member_id ORDER BY sequence)) AS e
                 WHERE sequence <> sequence_before + 1 OR balance_after <> before + change",
            ),
            (
                "lifetime points are not those on the board",
                "SELECT count(*) FROM points_account a
                 LEFT JOIN leaderboard_score s ON s.programme_id = a.programme_id AND s.member_id = a.member_id AND board = 'LIFETIME'
                 WHERE a.lifetime_points <> COALESCE(s.points, 0)",
            ),
            (
                "a board counts other members than it ranks",
                "SELECT count(*) FROM (
                     SELECT programme_id, board, count(*) AS ranked FROM leaderboard_score WHERE listed AND points > 0
                     GROUP BY programme_id, board) AS s
                 FULL JOIN (
                     SELECT programme_id, board, sum(members) AS counted
                     FROM (SELECT programme_id, board, members FROM leaderboard_bucket
                           UNION ALL SELECT programme_id, board, members FROM leaderboard_shift) AS both_tables
                     GROUP BY programme_id, board) AS c USING (programme_id, board)
                 WHERE COALESCE(ranked, 0) <> COALESCE(counted, 0)",
            ),
        ] {
            assert_eq!(self.count(sql).await, 0, "{what}");
        }
    }
}
