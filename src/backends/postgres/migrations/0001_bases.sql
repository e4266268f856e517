-- Version 1. Normative description: docs/format.md, part 6.
-- Runs with the search path set to the schema alone, in one transaction with its row in schema_versions.

-- One row a base: the checkpoint of one store. Whoever writes holds the advisory lock of the base.
create table bases (
    -- Names the rows of the base in `live` and `superseded`; a new number when the base is cleared.
    id bigint generated always as identity primary key,
    -- The log's id in hexadecimal, when a store names it.
    name text not null unique,
    -- Goes up with every change of what can be read. A read compares it with what its process knows.
    generation bigint not null default 0,
    -- The stamp; all null when nothing was ever written, or after clearing.
    log_id bytea,
    stamp_format bigint,
    position bigint,
    chain bytea,
    projection_names text[] not null default '{}',
    projection_versions bigint[] not null default '{}',
    projection_since bigint[] not null default '{}',
    -- Positions that are readable besides the stamp's, ascending.
    retained bigint[] not null default '{}',
    -- From here on every position is readable; null: no history is kept.
    history bigint,
    -- The last redaction of which nothing erased is in the base.
    redaction bigint not null default 0,
    -- Why the base is not trusted any more; it is used again once it was cleared.
    damaged text
);

-- Ids whose rows are to be removed: a base that was cleared gets a new id, and the rows go in the background.
create table cleared (
    base bigint primary key
);

-- Every key that has a value at the stamp. An encoded key is `partition` (its zero bytes not doubled, up to and
-- without the first 00 that no FF follows) and `key` (the rest): together they sort as the encoded key does, and the
-- longest pair fits an index row, which ends at 2,704 bytes.
create table live (
    base bigint not null,
    version bigint not null,
    partition bytea not null,
    key bytea not null,
    value bytea not null
);

-- Entries that were overwritten or deleted at `until` and that some readable position still sees: those from `version` on,
-- below `until`. A delete is the gap between `until` and the next version of the key.
create table superseded (
    base bigint not null,
    version bigint not null,
    until bigint not null,
    partition bytea not null,
    key bytea not null,
    value bytea not null
);

-- Keys are compared, not fetched, and must show their length to the index: no compression. Values that are
-- long are stored aside as they are: a page asks for their lengths without reading them.
alter table live alter partition set storage plain, alter key set storage plain, alter value set storage external;
alter table superseded alter partition set storage plain, alter key set storage plain, alter value set storage external;

alter table live add primary key (base, partition, key);
create unique index superseded_by_key on superseded (base, partition, key, until desc);
-- So that rows can be deleted where all tables of a database are published.
alter table superseded replica identity using index superseded_by_key;

-- For people: bytes as text where they are UTF-8, with escapes (\ooo) where they are not.
create function readable(bytes bytea) returns text language plpgsql immutable as $$
begin
    return convert_from(bytes, 'UTF8');
exception when others then
    return encode(bytes, 'escape');
end
$$;

-- For people: what is in the bases, newest state and what is kept of older ones (`until` is null where it is live).
create view entries_readable as
    select b.name as base, readable(e.partition) as partition, readable(substring(e.key from 3)) as key,
           e.version, e.until, readable(e.value) as value
    from (
        select base, partition, key, version, null::bigint as until, value from live
        union all
        select base, partition, key, version, until, value from superseded
    ) e join bases b on b.id = e.base;
