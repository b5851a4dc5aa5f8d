//! Pages of members by filter and order. The statement follows the filter, so that each filter gets the plan and the indexes that fit
//! it; values are parameters, and names of columns come from here alone.

use crate::domain::{
    filter::{Filter, Operator},
    member::State,
    member_list::{Order, OrderField, Place, PlaceBy, Test, Text, Time},
};
use chrono::{DateTime, Utc};
use koc_chassis::ids::{MemberId, ProgrammeId};
use sqlx::{PgConnection, Postgres, QueryBuilder, types::Json};
use uuid::Uuid;

#[derive(sqlx::FromRow)]
struct Row {
    member_id: Uuid,
    tier_id: String,
    region_code: String,
    create_time: DateTime<Utc>,
    update_time: DateTime<Utc>,
}

impl Row {
    fn into_place(self, order: Order) -> Place {
        let by = match order.field {
            OrderField::MemberId => PlaceBy::Member,
            OrderField::Time(Time::Create) => PlaceBy::Time(self.create_time),
            OrderField::Time(Time::Update) => PlaceBy::Time(self.update_time),
            OrderField::Text(Text::TierId) => PlaceBy::Text(self.tier_id),
            OrderField::Text(Text::RegionCode) => PlaceBy::Text(self.region_code),
        };
        Place { member: MemberId(self.member_id), by }
    }
}

fn text(column: Text) -> &'static str {
    match column {
        Text::TierId => "tier_id",
        Text::RegionCode => "region_code",
    }
}

fn time(column: Time) -> &'static str {
    match column {
        Time::Create => "create_time",
        Time::Update => "update_time",
    }
}

/// Places of the members that all of `filters` hold, in this order, after one of them.
pub async fn list(
    conn: &mut PgConnection,
    programme: ProgrammeId,
    filters: &[Filter<Test>],
    order: Order,
    after: Option<&Place>,
    limit: i64,
) -> Result<Vec<Place>, sqlx::Error> {
    let mut sql = statement(programme, filters, order, after, limit);
    // Planned for these very values, each time: how many members a value finds decides which index is best. And it leaves the
    // connection's cache to the statements that are always the same.
    let rows: Vec<Row> = sql.build_query_as().persistent(false).fetch_all(conn).await?;
    Ok(rows.into_iter().map(|row| row.into_place(order)).collect())
}

/// The statement of such a page.
pub fn statement(
    programme: ProgrammeId,
    filters: &[Filter<Test>],
    order: Order,
    after: Option<&Place>,
    limit: i64,
) -> QueryBuilder<Postgres> {
    let mut sql = QueryBuilder::new(
        "SELECT member_id, tier_id, region_code, create_time, update_time
         FROM member
         WHERE merged_into IS NULL AND programme_id = ",
    );
    sql.push_bind(programme.0);
    for filter in filters {
        sql.push(" AND ");
        push_filter(&mut sql, filter);
    }
    let column = match order.field {
        OrderField::MemberId => None,
        OrderField::Time(column) => Some(time(column)),
        OrderField::Text(column) => Some(text(column)),
    };
    if let Some(place) = after {
        sql.push(" AND (");
        if let Some(column) = column {
            sql.push(column).push(", ");
        }
        sql.push(if order.descending { "member_id) < (" } else { "member_id) > (" });
        match &place.by {
            PlaceBy::Member => {}
            PlaceBy::Time(time) => {
                sql.push_bind(*time).push(", ");
            }
            PlaceBy::Text(text) => {
                sql.push_bind(text.clone()).push(", ");
            }
        }
        sql.push_bind(place.member.0).push(")");
    }
    let direction = if order.descending { " DESC" } else { "" };
    sql.push(" ORDER BY ");
    if let Some(column) = column {
        sql.push(column).push(direction).push(", ");
    }
    sql.push("member_id").push(direction).push(" LIMIT ").push_bind(limit);
    sql
}

fn push_filter(sql: &mut QueryBuilder<Postgres>, filter: &Filter<Test>) {
    let (parts, between) = match filter {
        Filter::Is(test) => return push_test(sql, test),
        Filter::All(parts) => (parts, " AND "),
        Filter::Any(parts) => (parts, " OR "),
    };
    sql.push("(");
    for (i, part) in parts.iter().enumerate() {
        if i > 0 {
            sql.push(between);
        }
        push_filter(sql, part);
    }
    sql.push(")");
}

/// Unequal is less or greater: two ranges of an index, where `<>` has none.
fn push_test(sql: &mut QueryBuilder<Postgres>, test: &Test) {
    match test {
        Test::Text { column, is: true, value } => {
            sql.push(text(*column)).push(" = ").push_bind(value.clone());
        }
        Test::Text { column, is: false, value } => {
            let column = text(*column);
            sql.push("(").push(column).push(" < ").push_bind(value.clone());
            sql.push(" OR ").push(column).push(" > ").push_bind(value.clone()).push(")");
        }
        Test::TrustLevel(levels) => {
            let names: Vec<String> = levels.iter().map(|level| level.name().to_owned()).collect();
            sql.push("trust_level = ANY (").push_bind(names).push(")");
        }
        Test::State(states) => {
            // Who was erased stands as suspended, with the time.
            let conditions = states.iter().map(|state| match state {
                State::Active => "state = 'ACTIVE'",
                State::Suspended => "state = 'SUSPENDED' AND erase_time IS NULL",
                State::Erased => "state = 'SUSPENDED' AND erase_time IS NOT NULL",
            });
            sql.push("(").push(conditions.collect::<Vec<_>>().join(" OR ")).push(")");
        }
        Test::Time { column, operator: Operator::NotEqual, value } => {
            let column = time(*column);
            sql.push("(").push(column).push(" < ").push_bind(*value);
            sql.push(" OR ").push(column).push(" > ").push_bind(*value).push(")");
        }
        Test::Time { column, operator, value } => {
            let operator = match operator {
                Operator::Less => " < ",
                Operator::LessOrEqual => " <= ",
                Operator::Greater => " > ",
                Operator::GreaterOrEqual => " >= ",
                // The parser offers neither of the others for a time.
                Operator::Equal | Operator::NotEqual | Operator::Has => " = ",
            };
            sql.push(time(*column)).push(operator).push_bind(*value);
        }
        Test::Motivation(motivation) => {
            sql.push("motivations @> ").push_bind(Json([motivation.name()]));
        }
        Test::Platform(platform) => {
            sql.push("jsonb_path_query_array(channels, '$[*].platform') @> ").push_bind(Json([platform.clone()]));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{filter::parse, member_list::Field};

    #[test]
    fn a_statement_has_what_was_asked_and_no_value_in_its_text() {
        let filter = parse::<Field>(r#"NOT (tier_id = "x' OR '1" AND update_time >= 2026-11-01T00:00:00Z)"#).expect("a filter");
        let order = Order::parse("update_time desc").expect("an order");
        let place = Place { member: MemberId(Uuid::nil()), by: PlaceBy::Time(DateTime::UNIX_EPOCH) };
        let sql = statement(ProgrammeId(Uuid::nil()), &Vec::from_iter(filter), order, Some(&place), 3);
        let text = sql.sql();
        let (_, rest) = text.as_str().split_once("WHERE ").expect("a condition");
        let expected = "merged_into IS NULL AND programme_id = $1 AND ((tier_id < $2 OR tier_id > $3) OR update_time < $4) \
                        AND (update_time, member_id) < ($5, $6) ORDER BY update_time DESC, member_id DESC LIMIT $7";
        assert_eq!(rest, expected);
    }
}
