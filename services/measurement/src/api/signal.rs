//! SignalService.

use crate::{
    api::convert,
    domain::ids::{OutputId, SignalId},
    error::Error,
    store,
};
use koc_chassis::{fault::Violations, gate::Gate, page};
use koc_proto::koc::measurement::v1 as pb;
use tonic::{Request, Response, Status};

/// Serves signals.
pub struct SignalApi {
    pub gate: Gate<Error>,
}

#[tonic::async_trait]
impl pb::signal_service_server::SignalService for SignalApi {
    async fn get_signal(&self, request: Request<pb::GetSignalRequest>) -> Result<Response<pb::GetSignalResponse>, Status> {
        self.gate
            .read(request, |call, req: pb::GetSignalRequest| async move {
                let id = SignalId::parse("signal_id", &req.signal_id)?;
                let mut conn = self.gate.db().read().await?;
                let found = store::signal::find(&mut conn, call.programme, id).await?.ok_or(Error::SignalNotFound(id))?;
                Ok(pb::GetSignalResponse { signal: Some(convert::signal(&found)?) })
            })
            .await
    }

    async fn list_signals(&self, request: Request<pb::ListSignalsRequest>) -> Result<Response<pb::ListSignalsResponse>, Status> {
        self.gate
            .read(request, |call, req: pb::ListSignalsRequest| async move {
                let programme = call.programme.to_string();
                let filters = [programme.as_str(), &req.output_id];
                let mut violations = Violations::default();
                let output = violations.take(OutputId::parse_optional("output_id", &req.output_id)).flatten();
                let after = violations.take(page::after_id("ListSignals", &filters, &req.page_token)).flatten();
                violations.finish()?;
                let size = page::size(req.page_size);
                let mut conn = self.gate.db().read().await?;
                let mut found = store::signal::list(&mut conn, call.programme, output, after, size + 1).await?;
                let next_page_token =
                    page::cut(&mut found, size, |last| page::token("ListSignals", &filters, &last.id.to_string()));
                let signals = found.iter().map(convert::signal).collect::<Result<_, _>>()?;
                Ok(pb::ListSignalsResponse { signals, next_page_token })
            })
            .await
    }
}
