//! The schemas of plain numbers, for fields of other types: `#[schema(value_type = Partition)]`.

use utoipa::ToSchema;

/// The number of a partition.
#[derive(ToSchema)]
#[schema(minimum = 0, maximum = 999_999, examples(1))]
pub struct Partition(pub i32);

/// An offset in a partition.
#[derive(ToSchema)]
#[schema(minimum = 0, examples(812))]
pub struct Offset(pub i64);
