//! Simple and extended queries. Both come down to the same three steps of the session: parse, plan, run.

use std::fmt::Debug;
use std::sync::Arc;

use arrow_pg::datatypes::df::deserialize_parameters;
use arrow_pg::datatypes::{arrow_schema_to_pg_fields, encode_recordbatch, into_pg_type};
use async_trait::async_trait;
use datafusion::arrow::datatypes::DataType;
use datafusion::error::DataFusionError;
use datafusion::logical_expr::LogicalPlan;
use futures::{Sink, SinkExt, StreamExt, stream};
use pgwire::api::portal::{Format, Portal};
use pgwire::api::query::{ExtendedQueryHandler, SimpleQueryHandler};
use pgwire::api::results::{DataRowEncoder, FieldInfo, QueryResponse, Response, Tag};
use pgwire::api::stmt::QueryParser;
use pgwire::api::store::PortalStore;
use pgwire::api::{ClientInfo, ClientPortalStore, Type};
use pgwire::error::{PgWireError, PgWireResult};
use pgwire::messages::PgWireBackendMessage;

use super::connection::Connection;
use super::float_text::as_postgres_text;
use super::{error, notice};
use crate::answer::Answer;
use crate::error::QueryError;
use crate::statement::{Verdict, verdict};

/// The query handlers. Stateless: what a client may do is in its [`Connection`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Queries;

/// A statement between `Parse` and `Execute`.
#[derive(Clone, Debug)]
pub(super) enum Prepared {
    /// A query and its text for the audit log.
    Rows {
        plan: Arc<LogicalPlan>,
        sql: Arc<str>,
    },
    /// Something that is answered without running.
    Answer(Verdict),
}

#[async_trait]
impl SimpleQueryHandler for Queries {
    async fn do_query<C>(&self, client: &mut C, query: &str) -> PgWireResult<Vec<Response>>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let connection = Connection::of(client).await?;
        let session = &connection.session;
        let statements = session.parse(query).map_err(answer)?;
        if statements.is_empty() {
            return Ok(vec![Response::EmptyQuery]);
        }
        // Every statement is judged before the first one runs.
        let mut prepared = Vec::with_capacity(statements.len());
        let alone = statements.len() == 1;
        for statement in statements {
            prepared.push(match verdict(&statement) {
                Verdict::Query => {
                    let sql = if alone {
                        query.into()
                    } else {
                        statement.to_string().into()
                    };
                    let plan = session.plan(statement).await.map_err(answer)?;
                    Prepared::Rows {
                        plan: Arc::new(plan),
                        sql,
                    }
                }
                Verdict::Refused(reason) => return Err(answer(session.refuse(reason).await)),
                other => Prepared::Answer(other),
            });
        }
        let cancel = connection.begin_query();
        let mut responses = Vec::with_capacity(prepared.len());
        for statement in prepared {
            responses.push(match statement {
                Prepared::Rows { plan, sql } => {
                    let plan = Arc::unwrap_or_clone(plan);
                    let fields = fields(&plan, &Format::UnifiedText)?;
                    let answered = session.run(plan, &sql, cancel.clone()).await;
                    let answered = answered.map_err(answer)?;
                    tell(answered.notices(), client).await?;
                    Response::Query(respond(answered, fields))
                }
                Prepared::Answer(verdict) => effectless(&verdict, &Format::UnifiedText)?,
            });
        }
        Ok(responses)
    }
}

#[async_trait]
impl ExtendedQueryHandler for Queries {
    type Statement = Prepared;
    type QueryParser = Self;

    fn query_parser(&self) -> Arc<Self> {
        Arc::new(*self)
    }

    async fn do_query<C>(
        &self,
        client: &mut C,
        portal: &Portal<Prepared>,
        _max_rows: usize,
    ) -> PgWireResult<Response>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore<Statement = Prepared>,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let connection = Connection::of(client).await?;
        match &portal.statement.statement {
            Prepared::Answer(verdict) => effectless(verdict, &portal.result_column_format),
            Prepared::Rows { plan, sql } => {
                let types = parameter_types(plan)?;
                let types: Vec<Option<&DataType>> = types.iter().map(Option::as_ref).collect();
                let values = deserialize_parameters(portal, &types)?;
                let plan = LogicalPlan::clone(plan)
                    .replace_params_with_values(&values)
                    .map_err(|cause| answer(cause.into()))?;
                let fields = fields(&plan, &portal.result_column_format)?;
                let cancel = connection.begin_query();
                let answered = connection.session.run(plan, sql, cancel).await;
                let answered = answered.map_err(answer)?;
                tell(answered.notices(), client).await?;
                Ok(Response::Query(respond(answered, fields)))
            }
        }
    }
}

#[async_trait]
impl QueryParser for Queries {
    type Statement = Prepared;

    async fn parse_sql<C>(
        &self,
        client: &C,
        sql: &str,
        _types: &[Option<Type>],
    ) -> PgWireResult<Option<Prepared>>
    where
        C: ClientInfo + Unpin + Send + Sync,
    {
        let connection = Connection::of(client).await?;
        let session = &connection.session;
        let mut statements = session.parse(sql).map_err(answer)?;
        let Some(statement) = statements.pop() else {
            return Ok(None);
        };
        if !statements.is_empty() {
            return Err(error("42601", "a prepared statement is one statement"));
        }
        match verdict(&statement) {
            Verdict::Query => {
                let plan = Arc::new(session.plan(statement).await.map_err(answer)?);
                Ok(Some(Prepared::Rows {
                    plan,
                    sql: sql.into(),
                }))
            }
            Verdict::Refused(reason) => Err(answer(session.refuse(reason).await)),
            other => Ok(Some(Prepared::Answer(other))),
        }
    }

    fn get_parameter_types(&self, statement: &Prepared) -> PgWireResult<Vec<Type>> {
        match statement {
            Prepared::Answer(_) => Ok(Vec::new()),
            Prepared::Rows { plan, .. } => parameter_types(plan)?
                .iter()
                .map(|known| known.as_ref().map_or(Ok(Type::UNKNOWN), into_pg_type))
                .collect(),
        }
    }

    fn get_result_schema(
        &self,
        statement: &Prepared,
        format: Option<&Format>,
    ) -> PgWireResult<Vec<FieldInfo>> {
        let format = format.unwrap_or(&Format::UnifiedText);
        match statement {
            Prepared::Answer(Verdict::Show(name, _)) => Ok(vec![shown(name, format)]),
            Prepared::Answer(_) => Ok(Vec::new()),
            Prepared::Rows { plan, .. } => {
                arrow_schema_to_pg_fields(plan.schema().as_arrow(), format, None)
            }
        }
    }
}

/// Types of `$1`, `$2`, … as far as the planner could infer them.
fn parameter_types(plan: &LogicalPlan) -> PgWireResult<Vec<Option<DataType>>> {
    let inferred = plan
        .get_parameter_types()
        .map_err(|cause| answer(cause.into()))?;
    let number = |name: &str| name.trim_start_matches('$').parse::<usize>().ok();
    let last = inferred
        .keys()
        .filter_map(|name| number(name))
        .max()
        .unwrap_or(0);
    // The wire counts parameters in 16 bits (Bind, int16).
    let mut types = vec![None; last.min(usize::from(u16::MAX))];
    for (name, known) in inferred {
        if let Some(slot) = number(&name).and_then(|n| types.get_mut(n.checked_sub(1)?)) {
            *slot = known;
        }
    }
    Ok(types)
}

fn fields(plan: &LogicalPlan, format: &Format) -> PgWireResult<Arc<Vec<FieldInfo>>> {
    arrow_schema_to_pg_fields(plan.schema().as_arrow(), format, None).map(Arc::new)
}

/// Sends what has to be told beside an answer, before its rows: a person who reads on has seen it.
async fn tell<C>(notices: &[String], client: &mut C) -> PgWireResult<()>
where
    C: Sink<PgWireBackendMessage> + Unpin + Send,
    PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
{
    for text in notices {
        let notice = notice(text.as_str()).into();
        client
            .feed(PgWireBackendMessage::NoticeResponse(notice))
            .await?;
    }
    Ok(())
}

/// Rows as the wire carries them. Batches are encoded as the client takes them.
fn respond(answered: Answer, fields: Arc<Vec<FieldInfo>>) -> QueryResponse {
    let encode = Arc::clone(&fields);
    let rows = answered.flat_map(move |batch| match batch {
        Ok(batch) => match as_postgres_text(&batch, &encode) {
            Ok(batch) => stream::iter(encode_recordbatch(Arc::clone(&encode), batch)).left_stream(),
            Err(cause) => {
                let cause = DataFusionError::from(cause);
                stream::iter([Err(answer(cause.into()))]).right_stream()
            }
        },
        Err(cause) => stream::iter([Err(answer(cause.into()))]).right_stream(),
    });
    QueryResponse::new(fields, rows)
}

/// The response to what is acknowledged without effect.
fn effectless(verdict: &Verdict, format: &Format) -> PgWireResult<Response> {
    Ok(match verdict {
        Verdict::Begin => Response::TransactionStart(Tag::new("BEGIN")),
        Verdict::End(tag) => Response::TransactionEnd(Tag::new(tag)),
        Verdict::Acknowledge(tag) => Response::Execution(Tag::new(tag)),
        Verdict::Show(name, value) => {
            let fields = Arc::new(vec![shown(name, format)]);
            let mut row = DataRowEncoder::new(Arc::clone(&fields));
            row.encode_field(value)?;
            let mut response = QueryResponse::new(fields, stream::iter([Ok(row.take_row())]));
            response.set_command_tag("SHOW");
            Response::Query(response)
        }
        Verdict::Query | Verdict::Refused(_) => return Err(error("XX000", "not answered")),
    })
}

fn shown(name: &str, format: &Format) -> FieldInfo {
    FieldInfo::new(
        name.to_owned(),
        None,
        None,
        Type::TEXT,
        format.format_for(0),
    )
}

/// A query's error as the client may see it; the whole of it stays in the server's log, by kind.
fn answer(cause: QueryError) -> PgWireError {
    let (code, text) = cause.client_message();
    match &cause {
        QueryError::Storage { .. }
        | QueryError::Audit(_)
        | QueryError::Policy(_)
        | QueryError::Damaged(_)
        | QueryError::Malformed(_) => {
            tracing::error!(error = &cause as &dyn std::error::Error, "a query failed");
        }
        _ => tracing::debug!(code, "a query was answered with an error"),
    }
    error(code, text)
}
