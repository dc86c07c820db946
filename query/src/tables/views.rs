//! The views over `history`. Their text lies in `views/*.sql`, one file each, and says what they
//! mean; here they are only planned, in the order in which one may use another.

use datafusion::catalog::view::ViewTable;
use datafusion::common::Result;
use datafusion::prelude::SessionContext;

/// Name and text of each view.
pub(super) const VIEWS: [(&str, &str); 7] = [
    ("publishes", include_str!("views/publishes.sql")),
    ("consumes", include_str!("views/consumes.sql")),
    ("positions", include_str!("views/positions.sql")),
    ("topology", include_str!("views/topology.sql")),
    ("gaps", include_str!("views/gaps.sql")),
    ("flows", include_str!("views/flows.sql")),
    ("flow_days", include_str!("views/flow_days.sql")),
];

/// Plans the views in a context that knows `history`, `refused` and `flow_parts`.
pub(super) async fn plan(workshop: &SessionContext) -> Result<Vec<(&'static str, ViewTable)>> {
    let mut views = Vec::with_capacity(VIEWS.len());
    for (name, text) in VIEWS {
        let plan = workshop.state().create_logical_plan(text).await?;
        views.push((name, ViewTable::new(plan, Some(text.to_owned()))));
    }
    Ok(views)
}
