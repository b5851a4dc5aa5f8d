//! BookingService.

use super::{Api, stock::usable};
use crate::{
    domain::{
        cost::parse_date,
        resource_kind::ResourceKind,
        stock::{Booking, Unit},
    },
    error::Error,
    ids::{ResourceId, UnitId},
    store,
};
use koc_chassis::{
    fault::{Violation, Violations, constraint},
    page,
};
use koc_proto::koc::budget::v1 as pb;
use tonic::{Request, Response, Status};

const LIST: &str = "ListUnits";
/// The longest calendar in days.
const MAX_DAYS: i64 = 800;
/// What has units.
const BOOKED: [ResourceKind; 4] =
    [ResourceKind::LoanVehicle, ResourceKind::ProductionCrew, ResourceKind::EarlyAccess, ResourceKind::InformationPrivilege];

#[tonic::async_trait]
impl pb::booking_service_server::BookingService for Api {
    async fn register_unit(
        &self,
        request: Request<pb::RegisterUnitRequest>,
    ) -> Result<Response<pb::RegisterUnitResponse>, Status> {
        self.gate
            .mutate(request, |work, request: pb::RegisterUnitRequest| {
                Box::pin(async move {
                    let id = ResourceId::parse("resource_id", &request.resource_id)?;
                    let programme = work.programme();
                    usable(work.conn(), programme, id, &BOOKED).await?;
                    let unit = Unit { id: UnitId::new(), programme, resource: id, display_name: request.display_name };
                    let name_taken = |error: sqlx::Error| match constraint(&error) {
                        Some("resource_unit_name") => Error::UnitNameTaken,
                        _ => Error::Database(error),
                    };
                    store::booking::insert_unit(work.conn(), &unit).await.map_err(name_taken)?;
                    work.audit(unit.id.0, None);
                    Ok(pb::RegisterUnitResponse { unit: Some(unit_to_proto(&unit)) })
                })
            })
            .await
            .map(Into::into)
    }

    async fn list_units(&self, request: Request<pb::ListUnitsRequest>) -> Result<Response<pb::ListUnitsResponse>, Status> {
        self.gate
            .read(request, async |call, request: pb::ListUnitsRequest| {
                let programme = call.programme.to_string();
                let filters = [programme.as_str(), request.resource_id.as_str()];
                let after = page::after_id(LIST, &filters, &request.page_token)?;
                let id = ResourceId::parse("resource_id", &request.resource_id)?;
                let size = page::size(request.page_size);
                let mut conn = self.gate.db().read().await?;
                let mut units = store::booking::list_units(&mut conn, call.programme, id, after, size + 1).await?;
                let next_page_token = page::cut(&mut units, size, |unit| page::token(LIST, &filters, &unit.id.to_string()));
                Ok(pb::ListUnitsResponse { units: units.iter().map(unit_to_proto).collect(), next_page_token })
            })
            .await
    }

    async fn list_bookings(
        &self,
        request: Request<pb::ListBookingsRequest>,
    ) -> Result<Response<pb::ListBookingsResponse>, Status> {
        self.gate
            .read(request, async |call, request: pb::ListBookingsRequest| {
                let mut violations = Violations::default();
                let unit = violations.take(UnitId::parse("unit_id", &request.unit_id));
                let start = violations.take(parse_date("start_date", &request.start_date));
                let end = violations.take(parse_date("end_date", &request.end_date));
                if let Some((start, end)) = start.zip(end) {
                    let rule = match (end - start).num_days() {
                        ..1 => Some(("PERIOD_EMPTY", "must be after start_date".to_owned())),
                        days if days > MAX_DAYS => {
                            Some(("PERIOD_TOO_LONG", format!("must be at most {MAX_DAYS} days after start_date")))
                        }
                        _ => None,
                    };
                    if let Some((rule, shape)) = rule {
                        violations.push(Violation::new("end_date", rule, shape));
                    }
                }
                violations.finish()?;
                let (Some(unit), Some(start), Some(end)) = (unit, start, end) else { return Ok(Default::default()) };
                let mut conn = self.gate.db().read().await?;
                store::booking::find_unit(&mut conn, call.programme, unit).await?.ok_or(Error::UnitNotFound(unit))?;
                let bookings = store::booking::calendar(&mut conn, unit, start, end).await?;
                Ok(pb::ListBookingsResponse { bookings: bookings.iter().map(booking_to_proto).collect() })
            })
            .await
    }
}

fn unit_to_proto(unit: &Unit) -> pb::Unit {
    pb::Unit { unit_id: unit.id.to_string(), resource_id: unit.resource.to_string(), display_name: unit.display_name.clone() }
}

fn booking_to_proto(booking: &Booking) -> pb::Booking {
    pb::Booking {
        grant_id: booking.grant.to_string(),
        unit_id: booking.unit.to_string(),
        start_date: booking.start.to_string(),
        end_date: booking.end.to_string(),
        ended: booking.ended,
    }
}
