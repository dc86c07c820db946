//! One query, read-only: text in, a stream of batches out. What it may see is what the context
//! from [`crate::tables`] holds; what it may do is to read.

mod error;
pub mod output;

use std::collections::VecDeque;

use datafusion::execution::SendableRecordBatchStream;
use datafusion::logical_expr::LogicalPlan;
use datafusion::prelude::{SQLOptions, SessionContext};
use datafusion::sql::parser::{DFParserBuilder, Statement};
use datafusion::sql::sqlparser::ast;
use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;

pub use error::SqlError;

/// Longer texts are not parsed. A list of a thousand ids takes 40 kB.
const MAX_TEXT_BYTES: usize = 256 << 10;

/// Plans `text` and starts it. The stream holds no row limit and no time limit of its own:
/// [`output::write`] counts rows, and the caller drops or kills what takes too long.
pub async fn query(
    context: &SessionContext,
    text: &str,
) -> Result<SendableRecordBatchStream, SqlError> {
    let plan = plan(context, text).await?;
    let failed = |error| SqlError::new(text, &error);
    let frame = context.execute_logical_plan(plan).await.map_err(failed)?;
    frame.execute_stream().await.map_err(failed)
}

/// Parses and plans one statement that reads.
async fn plan(context: &SessionContext, text: &str) -> Result<LogicalPlan, SqlError> {
    if text.len() > MAX_TEXT_BYTES {
        return Err(SqlError::said(format!(
            "the query has {} bytes, more than the {MAX_TEXT_BYTES} allowed",
            text.len()
        )));
    }
    let failed = |error| SqlError::new(text, &error);
    let state = context.state();
    // DataFusion's own dialect takes `SELECT system, cluster` for the beginning of CLUSTER BY.
    let depth = state.config_options().sql_parser.recursion_limit.get();
    let mut statements: VecDeque<Statement> = DFParserBuilder::new(text)
        .with_dialect(&PostgreSqlDialect {})
        .with_recursion_limit(depth)
        .build()
        .and_then(|mut parser| parser.parse_statements())
        .map_err(failed)?;
    let statement = match (statements.pop_front(), statements.len()) {
        (Some(statement), 0) => statement,
        (None, _) => return Err(SqlError::said("the query is empty")),
        (Some(_), more) => {
            return Err(SqlError::said(format!("one statement at a time, these are {}", more + 1)));
        }
    };
    only_reads(&statement)?;
    let plan = state.statement_to_plan(statement).await.map_err(failed)?;
    // Second lock on the same door: whatever the syntax was, the plan must not write.
    let options =
        SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
    options.verify_plan(&plan).map_err(failed)?;
    Ok(plan)
}

/// Refuses by its first words what is not a question.
fn only_reads(statement: &Statement) -> Result<(), SqlError> {
    let reads = match statement {
        Statement::Explain(explain) => return only_reads(&explain.statement),
        Statement::Statement(statement) => matches!(
            statement.as_ref(),
            ast::Statement::Query(_)
                | ast::Statement::ExplainTable { .. }
                | ast::Statement::ShowTables { .. }
                | ast::Statement::ShowColumns { .. }
                | ast::Statement::ShowFunctions { .. }
                | ast::Statement::ShowVariable { .. }
        ),
        _ => false,
    };
    if reads {
        return Ok(());
    }
    let text = statement.to_string();
    let verb: Vec<&str> = text.split_whitespace().take(2).collect();
    Err(SqlError::said(format!(
        "{} is not allowed: flowtap only reads. Ask with SELECT, WITH, VALUES, EXPLAIN, DESCRIBE or SHOW",
        verb.join(" ").trim_end_matches(';')
    )))
}
