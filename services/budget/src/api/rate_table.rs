//! RateTableService.

use super::Api;
use crate::{
    domain::cost::{
        parse_date,
        rate_table::{NewRateTable, RateTable, Row, RowText, TableKind, parse_rows},
    },
    error::Error,
    store,
};
use koc_chassis::{
    clock,
    fault::{Violation, Violations},
    gate::Call,
    page,
};
use koc_proto::koc::budget::v1 as pb;
use rust_decimal::Decimal;
use tonic::{Request, Response, Status};

const LIST: &str = "ListRateTables";

#[tonic::async_trait]
impl pb::rate_table_service_server::RateTableService for Api {
    async fn set_rate_table(
        &self,
        request: Request<pb::SetRateTableRequest>,
    ) -> Result<Response<pb::SetRateTableResponse>, Status> {
        let prepare = async |call: &Call, request: &pb::SetRateTableRequest| {
            self.currencies.of(call.programme).await?;
            Ok(new_table(request)?)
        };
        self.gate
            .mutate_after(request, prepare, |work, _, new: NewRateTable| {
                Box::pin(async move {
                    let (programme, actor) = (work.programme(), work.actor().to_owned());
                    store::rate_table::lock(work.conn(), programme, &new.id).await?;
                    if let Some(newest) = store::rate_table::newest(work.conn(), programme, &new.id).await?
                        && newest.kind != new.kind
                    {
                        return Err(Error::RateTableKind { table: new.id, is: newest.kind, must_be: new.kind });
                    }
                    let table = store::rate_table::insert(work.conn(), programme, &new, &actor).await?;
                    work.audit(programme.0, Some(format!("{} version {}: {}", table.id, table.version, table.source)));
                    Ok(pb::SetRateTableResponse { rate_table: Some(to_proto(&table)) })
                })
            })
            .await
            .map(Into::into)
    }

    async fn get_rate_table(
        &self,
        request: Request<pb::GetRateTableRequest>,
    ) -> Result<Response<pb::GetRateTableResponse>, Status> {
        self.gate
            .read(request, async |call, request: pb::GetRateTableRequest| {
                let (id, mut conn) = (&request.rate_table_id, self.gate.db().read().await?);
                let found = match (request.version, request.date.as_str()) {
                    (0, "") => store::rate_table::newest(&mut conn, call.programme, id).await?,
                    (0, date) => {
                        let date = parse_date("date", date)?;
                        store::rate_table::in_force(&mut conn, call.programme, std::slice::from_ref(id), date).await?.pop()
                    }
                    (version, _) => store::rate_table::find(&mut conn, call.programme, id, version).await?,
                };
                let table = found.ok_or_else(|| Error::RateTableNotFound(id.clone()))?;
                Ok(pb::GetRateTableResponse { rate_table: Some(to_proto(&table)) })
            })
            .await
    }

    async fn list_rate_tables(
        &self,
        request: Request<pb::ListRateTablesRequest>,
    ) -> Result<Response<pb::ListRateTablesResponse>, Status> {
        self.gate
            .read(request, async |call, request: pb::ListRateTablesRequest| {
                let programme = call.programme.to_string();
                let filters = [programme.as_str(), request.rate_table_id.as_str()];
                let after = page::key(LIST, &filters, &request.page_token)?.as_deref().map(parse_key).transpose()?;
                let only = Some(request.rate_table_id.as_str()).filter(|id| !id.is_empty());
                let size = page::size(request.page_size);
                let mut conn = self.gate.db().read().await?;
                let mut tables = store::rate_table::list(&mut conn, call.programme, only, after, size + 1).await?;
                let key = |table: &RateTable| format!("{}/{}", table.id, table.version);
                let next_page_token = page::cut(&mut tables, size, |table| page::token(LIST, &filters, &key(table)));
                Ok(pb::ListRateTablesResponse { rate_tables: tables.iter().map(to_proto).collect(), next_page_token })
            })
            .await
    }
}

/// Where a page ends: the table and the version.
fn parse_key(key: &str) -> Result<(String, i64), Violation> {
    let parsed = key.split_once('/').and_then(|(id, version)| Some((id.to_owned(), version.parse().ok()?)));
    parsed.ok_or_else(|| Violation::new("page_token", "PAGE_TOKEN_INVALID", "must come from the page before"))
}

fn new_table(request: &pb::SetRateTableRequest) -> Result<NewRateTable, Vec<Violation>> {
    let mut violations = Violations::default();
    let kind = violations.take(table_kind(request.kind));
    let valid_from = violations.take(parse_date("valid_from_date", &request.valid_from_date));
    let text = |row: &'_ pb::RateRow| -> [String; 6] {
        [&row.key, &row.from, &row.rate, &row.allowance, &row.taxable_share, &row.deduction].map(Clone::clone)
    };
    let texts: Vec<[String; 6]> = request.rows.iter().map(text).collect();
    let texts: Vec<RowText<'_>> = texts
        .iter()
        .map(|[key, from, rate, allowance, taxable_share, deduction]| RowText {
            key,
            from,
            rate,
            allowance,
            taxable_share,
            deduction,
        })
        .collect();
    let rows = kind.and_then(|kind| violations.take_all(parse_rows(kind, &texts)));
    violations.finish()?;
    match (kind, valid_from, rows) {
        (Some(kind), Some(valid_from), Some(rows)) => {
            Ok(NewRateTable { id: request.rate_table_id.clone(), kind, valid_from, source: request.source.clone(), rows })
        }
        _ => Err(Vec::new()),
    }
}

/// The contract lets only defined values but UNSPECIFIED through.
fn table_kind(kind: i32) -> Result<TableKind, Violation> {
    match pb::RateTableKind::try_from(kind) {
        Ok(pb::RateTableKind::Keyed) => Ok(TableKind::Keyed),
        Ok(pb::RateTableKind::Steps) => Ok(TableKind::Steps),
        Ok(pb::RateTableKind::Withholding) => Ok(TableKind::Withholding),
        Ok(pb::RateTableKind::Unspecified) | Err(_) => Err(Violation::new("kind", "enum.defined_only", "must be a known kind")),
    }
}

fn to_proto(table: &RateTable) -> pb::RateTable {
    let (sized, taxed) = (table.kind != TableKind::Keyed, table.kind == TableKind::Withholding);
    let of_kind = |value: Decimal, shown: bool| if shown { value.to_string() } else { String::new() };
    let row = |row: &Row| pb::RateRow {
        key: row.key.clone(),
        from: of_kind(row.from, sized),
        rate: row.rate.to_string(),
        allowance: of_kind(row.allowance, taxed),
        taxable_share: of_kind(row.taxable_share, taxed),
        deduction: of_kind(row.deduction, taxed),
    };
    pb::RateTable {
        rate_table_id: table.id.clone(),
        programme_id: table.programme.to_string(),
        version: table.version,
        kind: match table.kind {
            TableKind::Keyed => pb::RateTableKind::Keyed.into(),
            TableKind::Steps => pb::RateTableKind::Steps.into(),
            TableKind::Withholding => pb::RateTableKind::Withholding.into(),
        },
        valid_from_date: table.valid_from.to_string(),
        source: table.source.clone(),
        rows: table.rows.iter().map(row).collect(),
        set_by: table.set_by.clone(),
        create_time: Some(clock::to_proto(table.create_time)),
    }
}
