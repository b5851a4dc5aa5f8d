//! TaskService.

use super::convert;
use crate::{
    domain::{
        BriefId, EnvelopeId, TaskId,
        task::{Deadlines, Task, TaskState},
    },
    error::{BriefProblem, Error},
    peer::Registry,
    store,
};
use chrono::{DateTime, Utc};
use koc_chassis::{
    clock,
    fault::{Violation, Violations},
    gate::{Call, Gate, Work},
    ids::ProgrammeId,
    money::{Currency, Money},
    page,
};
use koc_proto::koc::task::v1 as pb;
use tonic::{Request, Response, Status};

const LIST: &str = "ListTasks";

pub struct TaskApi {
    pub gate: Gate<Error>,
    pub registry: Registry,
}

/// The task that is asked for; all violations at once.
fn draft(
    programme: ProgrammeId,
    request: pb::CreateTaskRequest,
    currency: Currency,
    now: DateTime<Utc>,
) -> Result<Task, Vec<Violation>> {
    let mut violations = Violations::default();
    let brief = violations.take(BriefId::parse("brief_id", &request.brief_id));
    let envelope = violations.take(EnvelopeId::parse("envelope_id", &request.envelope_id));
    let reward = violations.take(Money::parse_positive("reward", request.reward.as_ref(), currency));
    let offer = violations.take(clock::required("offer_deadline", request.offer_deadline.as_ref()));
    let delivery = violations.take(clock::required("delivery_deadline", request.delivery_deadline.as_ref()));
    let deadlines = match (offer, delivery) {
        (Some(offer), Some(delivery)) => {
            let parsed = Deadlines::parse(offer, delivery, request.review_days, now);
            violations.take_all(parsed.map_err(|flaws| flaws.into_iter().map(convert::deadline_flaw).collect()))
        }
        _ => None,
    };
    violations.finish()?;
    let (Some(brief), Some(envelope), Some(reward), Some(deadlines)) = (brief, envelope, reward, deadlines) else {
        return Err(Vec::new());
    };
    Ok(Task {
        id: TaskId::new(),
        programme,
        display_name: request.display_name,
        state: TaskState::Draft,
        brief,
        brief_revision: request.brief_revision,
        target: request.target.map(convert::target_group).unwrap_or_default(),
        capacity: request.capacity,
        filled: 0,
        reward,
        envelope,
        deadlines,
        create_time: now,
    })
}

async fn emit(work: &mut Work, task: &Task) -> Result<(), Error> {
    let state = convert::task_state_to_proto(task.state).into();
    work.emit(task.id.0, &pb::TaskChanged { task_id: task.id.to_string(), state }).await?;
    work.audit(task.id.0, None);
    Ok(())
}

#[tonic::async_trait]
impl pb::task_service_server::TaskService for TaskApi {
    async fn create_task(&self, request: Request<pb::CreateTaskRequest>) -> Result<Response<pb::CreateTaskResponse>, Status> {
        let registry = self.registry.clone();
        let currency = async move |call: &Call, _: &_| registry.currency(call.programme).await;
        self.gate
            .mutate_after(request, currency, |work, request, currency| {
                Box::pin(async move {
                    let (programme, now) = (work.programme(), work.now().await?);
                    let task = draft(programme, request, currency, now)?;
                    if !store::brief::exists(work.conn(), programme, task.brief).await? {
                        return Err(Error::BriefNotFound(task.brief));
                    }
                    if store::brief::published(work.conn(), task.brief, task.brief_revision).await?.is_none() {
                        let problem = BriefProblem::NotPublished(task.brief_revision);
                        return Err(Error::BriefState { brief: task.brief, problem });
                    }
                    store::task::insert(work.conn(), &task).await?;
                    emit(work, &task).await?;
                    Ok(pb::CreateTaskResponse { task: Some(convert::task_to_proto(&task)) })
                })
            })
            .await
            .map(Into::into)
    }

    async fn publish_task(&self, request: Request<pb::PublishTaskRequest>) -> Result<Response<pb::PublishTaskResponse>, Status> {
        self.gate
            .mutate(request, |work, request| {
                Box::pin(async move {
                    let (programme, id) = (work.programme(), TaskId::parse("task_id", &request.task_id)?);
                    let task = store::task::lock(work.conn(), programme, id).await?.ok_or(Error::TaskNotFound(id))?;
                    let target = task.target.clone();
                    let task = task.publish().map_err(|problem| Error::Task { task: id, target, problem })?;
                    store::task::update(work.conn(), &task).await?;
                    emit(work, &task).await?;
                    Ok(pb::PublishTaskResponse { task: Some(convert::task_to_proto(&task)) })
                })
            })
            .await
            .map(Into::into)
    }

    async fn get_task(&self, request: Request<pb::GetTaskRequest>) -> Result<Response<pb::GetTaskResponse>, Status> {
        self.gate
            .read(request, async |call, request| {
                let id = TaskId::parse("task_id", &request.task_id)?;
                let mut tx = self.gate.db().begin().await?;
                let task = store::task::find(&mut tx, call.programme, id).await?.ok_or(Error::TaskNotFound(id))?;
                Ok(pb::GetTaskResponse { task: Some(convert::task_to_proto(&task)) })
            })
            .await
    }

    async fn list_tasks(&self, request: Request<pb::ListTasksRequest>) -> Result<Response<pb::ListTasksResponse>, Status> {
        self.gate
            .read(request, async |call, request| {
                let programme = call.programme.to_string();
                let filters = [programme.as_str()];
                let after = page::after_id(LIST, &filters, &request.page_token)?;
                let size = page::size(request.page_size);
                let mut tx = self.gate.db().begin().await?;
                let mut tasks = store::task::list(&mut tx, call.programme, after, size + 1).await?;
                let next_page_token = page::cut(&mut tasks, size, |t| page::token(LIST, &filters, &t.id.to_string()));
                Ok(pb::ListTasksResponse { tasks: tasks.iter().map(convert::task_to_proto).collect(), next_page_token })
            })
            .await
    }
}
