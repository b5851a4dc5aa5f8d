//! OutputService.

use crate::{
    api::convert,
    domain::{
        ids::OutputId,
        output::Output,
        reading::{Series, Total},
    },
    error::Error,
    store::{self, output::OutputFilter},
};
use koc_chassis::{
    fault::Violations,
    gate::Gate,
    ids::{self, MemberId},
    page,
};
use koc_proto::koc::measurement::v1 as pb;
use sqlx::PgConnection;
use tonic::{Request, Response, Status};
use uuid::Uuid;

/// Serves outputs.
pub struct OutputApi {
    pub gate: Gate<Error>,
}

/// Outputs with their totals and attainments.
async fn dress(conn: &mut PgConnection, outputs: &[Output]) -> Result<Vec<pb::Output>, Error> {
    let ids: Vec<Uuid> = outputs.iter().map(|output| output.id.0).collect();
    let totals: Vec<(Series, Total)> = store::observation::totals(conn, &ids).await?.into_iter().collect();
    let attainments = store::output::attainments(conn, &ids).await?;
    outputs.iter().map(|output| convert::output(output, &totals, &attainments)).collect()
}

#[tonic::async_trait]
impl pb::output_service_server::OutputService for OutputApi {
    async fn get_output(&self, request: Request<pb::GetOutputRequest>) -> Result<Response<pb::GetOutputResponse>, Status> {
        self.gate
            .read(request, |call, req: pb::GetOutputRequest| async move {
                let id = OutputId::parse("output_id", &req.output_id)?;
                let mut conn = self.gate.db().read().await?;
                let found = store::output::find(&mut conn, call.programme, id).await?.ok_or(Error::OutputNotFound(id))?;
                let output = dress(&mut conn, &[found]).await?.pop();
                Ok(pb::GetOutputResponse { output })
            })
            .await
    }

    async fn list_outputs(&self, request: Request<pb::ListOutputsRequest>) -> Result<Response<pb::ListOutputsResponse>, Status> {
        self.gate
            .read(request, |call, req: pb::ListOutputsRequest| async move {
                let programme = call.programme.to_string();
                let filters = [programme.as_str(), &req.member_id, &req.assignment_id];
                let mut violations = Violations::default();
                let member = violations.take(MemberId::parse_optional("member_id", &req.member_id)).flatten();
                let assignment = if req.assignment_id.is_empty() {
                    None
                } else {
                    violations.take(ids::parse("assignment_id", &req.assignment_id))
                };
                let after = violations.take(page::after_id("ListOutputs", &filters, &req.page_token)).flatten();
                violations.finish()?;
                let size = page::size(req.page_size);
                let filter = OutputFilter { member, assignment };
                let mut conn = self.gate.db().read().await?;
                let mut found = store::output::list(&mut conn, call.programme, filter, after, size + 1).await?;
                let next_page_token =
                    page::cut(&mut found, size, |last| page::token("ListOutputs", &filters, &last.id.to_string()));
                let outputs = dress(&mut conn, &found).await?;
                Ok(pb::ListOutputsResponse { outputs, next_page_token })
            })
            .await
    }
}
