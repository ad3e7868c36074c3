"""The words of SQL that the `sql` keyword knows, each harmless wherever it may stand."""

from __future__ import annotations

from typing import Final


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


KEYWORDS: Final = _words("""
    all and any as asc between both by case cast cross current day days delete desc distinct else end
    epoch escape except exists extract false fetch filter first following from full group having hour
    hours ilike in inner insert intersect interval into is join last leading left like limit minute
    minutes month months natural next not null nulls offset on only or order outer over partition
    preceding quarter range recursive returning right row rows second seconds select set then time
    timestamp date trailing true unbounded union update using values week weeks when where with year
    years zone at
""")
"""What may stand bare and is neither a name, a type nor a function."""

REFUSED: Final = _words("""
    analyze attach call cluster comment commit copy create deallocate declare detach do drop dumpfile
    exec execute explain for grant handler install kill load lock merge outfile pragma prepare procedure
    reindex rename replace reset revoke rollback security share show truncate use vacuum alter lateral
    materialized tablesample notify listen begin savepoint checkpoint discard rowid_fn infile xmltable
    json_table table current_user session_user system_user current_role current_catalog current_schema
""")
REFUSED_BY: Final = {"mysql": REFUSED, "postgres": REFUSED | {"user"}, "sqlite": REFUSED}
"""What never stands bare, not even as a name, by dialect: `user` is a function to one of them."""

TYPES: Final = _words("""
    bigint boolean char date decimal double float int integer numeric precision real smallint text time
    timestamp timestamptz uuid varchar interval signed unsigned
""")

FUNCTIONS: Final = _words("""
    abs avg ceil ceiling char_length character_length coalesce concat count current_date current_time
    current_timestamp date_part date_trunc dense_rank exp floor first_value greatest ifnull lag
    last_value lead least left length ln log lower ltrim max min mod now ntile nullif percent_rank
    position power rank right round row_number rtrim sign sqrt stddev stddev_pop stddev_samp substr
    substring sum trim upper var_pop var_samp variance year month day hour minute second quarter week
    date extract cast strftime total group_concat string_agg cume_dist date_format datediff julianday
""")
"""They compute from what they are given, or tell the time."""

NODES: Final = _words("""
    Abs Add Alias All And Any Array Avg Between Boolean Case Cast Ceil Coalesce Column Concat Count CTE
    CumeDist CurrentDate CurrentTime CurrentTimestamp DataType DataTypeParam Date DateDiff DateTrunc Day
    Delete DenseRank Distinct Div DPipe EQ Escape Except Exists Exp Extract Fetch Filter FirstValue
    Floor From Greatest Group GroupConcat GT GTE Having Hour Identifier If ILike In Insert Intersect
    Interval Is Join Lag LastValue Lead Least Left Length Like Limit LimitOptions Literal Ln Log Lower
    LT LTE Max Min Minute Mod Month Mul Neg NEQ Not Ntile Null Nullif Offset Or Order Ordered Paren
    PercentRank Pow Quarter Rank Returning Right Round RowNumber Schema Second Select Sign Sqrt Star
    Stddev StddevPop StddevSamp StrPosition Sub Subquery Substring Sum Table TableAlias TimestampTrunc
    TimeToStr Trim TsOrDsToTimestamp TsOrDsToDate Tuple Union Update Upper Values Var Variance
    VariancePop Week Where Window WindowSpec With Year AtTimeZone
""")
"""Classes of the parser's tree that say nothing beyond what stands in them."""

BARE: Final = _words("CTE Delete From Insert Returning Schema Select Subquery Table TableAlias Update Values")
"""Of these, the ones that may have no flag set: a flag is a clause of which nothing else tells."""

TYPE_NODES: Final = _words("""
    BIGINT BOOLEAN CHAR DATE DECIMAL DOUBLE FLOAT INT INTERVAL SMALLINT TEXT TIME TIMESTAMP TIMESTAMPTZ
    UUID VARCHAR UBIGINT DATETIME
""")
