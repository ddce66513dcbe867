-- A small database with everything that makes a table of contents interesting.
-- Works from PostgreSQL 13 on, without extensions beyond plpgsql.
-- Roles belong to the server, not to the database: a second run finds them there.
DO $$ BEGIN CREATE ROLE sample_owner; EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END $$;
DO $$ BEGIN CREATE ROLE "sample reader"; EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END $$;
CREATE SCHEMA app;
CREATE SCHEMA "Odd.Schema";
COMMENT ON SCHEMA app IS 'the application';

CREATE TYPE app.mood AS ENUM ('happy', 'sad');
CREATE DOMAIN app.email AS text CHECK (VALUE ~ '@');
CREATE TYPE app.span AS RANGE (subtype = numeric);
CREATE TYPE app.pair AS (a integer, b text);

CREATE FUNCTION app.slug(text) RETURNS text LANGUAGE sql IMMUTABLE AS $$ SELECT lower($1) $$;
CREATE FUNCTION app.touch() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$;
CREATE SEQUENCE app.ticket START 100;

CREATE TABLE app.users (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    mail app.email NOT NULL,
    mood app.mood DEFAULT 'happy',
    ticket bigint DEFAULT nextval('app.ticket'),
    slug text GENERATED ALWAYS AS (app.slug(mail)) STORED
);
COMMENT ON TABLE app.users IS 'people';
COMMENT ON COLUMN app.users.mail IS 'where to write';
GRANT SELECT ON app.users TO "sample reader";
GRANT SELECT (mail) ON app.users TO "sample reader";
CREATE INDEX users_slug ON app.users (app.slug(mail));
CREATE TRIGGER touch BEFORE UPDATE ON app.users FOR EACH ROW EXECUTE FUNCTION app.touch();
ALTER TABLE app.users ENABLE ROW LEVEL SECURITY;
CREATE POLICY readable ON app.users FOR SELECT TO "sample reader" USING (mood = 'happy');
CREATE STATISTICS app.users_stats (ndistinct) ON mail, mood FROM app.users;
INSERT INTO app.users (mail, mood) SELECT 'U' || i || '@example.org', CASE i % 2 WHEN 0 THEN 'sad'::app.mood ELSE 'happy' END FROM generate_series(1, 20) i;

CREATE TABLE app.memes (
    id serial PRIMARY KEY,
    author bigint NOT NULL REFERENCES app.users (id),
    title text,
    body bytea,
    tags text[],
    size app.pair
);
ALTER TABLE app.memes OWNER TO sample_owner;
INSERT INTO app.memes (author, title, body, tags, size)
SELECT 1 + i % 20, E'tab\t newline\n backslash \\ end \\.', decode(repeat('00ff5c2e', 8), 'hex'), ARRAY['a', NULL, 'b"c'], ROW(i, 'x')::app.pair
FROM generate_series(1, 30) i;
CREATE RULE no_delete AS ON DELETE TO app.memes DO INSTEAD NOTHING;

CREATE VIEW app.happy AS SELECT id, mail FROM app.users WHERE mood = 'happy';
CREATE MATERIALIZED VIEW app.per_user AS SELECT author, count(*) AS memes FROM app.memes GROUP BY author;
CREATE UNIQUE INDEX per_user_author ON app.per_user (author);

CREATE TABLE app.events (at date NOT NULL, what text, id bigint) PARTITION BY RANGE (at);
CREATE TABLE app.events_2025 PARTITION OF app.events FOR VALUES FROM ('2025-01-01') TO ('2026-01-01');
CREATE TABLE app.events_2026 PARTITION OF app.events FOR VALUES FROM ('2026-01-01') TO ('2027-01-01') PARTITION BY LIST (what);
CREATE TABLE app.events_2026_a PARTITION OF app.events_2026 FOR VALUES IN ('a');
ALTER TABLE app.events ADD PRIMARY KEY (at, what);
CREATE INDEX events_id ON app.events (id);
CREATE TABLE app.notes (at date, what text, note text, FOREIGN KEY (at, what) REFERENCES app.events (at, what));
INSERT INTO app.events VALUES ('2025-05-05', 'b', 1), ('2026-05-05', 'a', 2);
INSERT INTO app.notes VALUES ('2025-05-05', 'b', 'first');

CREATE TABLE app.base (id integer PRIMARY KEY, name text);
CREATE TABLE app.derived (extra text) INHERITS (app.base);
INSERT INTO app.base VALUES (1, 'base');
INSERT INTO app.derived VALUES (2, 'derived', 'more');

CREATE TABLE "Odd.Schema"."Täble "" with, (everything) %_*?" ("a ""b"", c" integer, "größe" text, "select" text);
INSERT INTO "Odd.Schema"."Täble "" with, (everything) %_*?" VALUES (1, 'ü', 's'), (2, NULL, '');
CREATE TABLE public.bare ();
INSERT INTO public.bare DEFAULT VALUES;
INSERT INTO public.bare DEFAULT VALUES;
CREATE TABLE public.empty (id integer);
CREATE UNLOGGED TABLE public.unlogged (id integer);
CREATE TABLE public.users (id integer);
INSERT INTO public.users VALUES (42);

SELECT lo_from_bytea(900001, 'first large object');
SELECT lo_from_bytea(900002, decode(repeat('00ff0a', 3000), 'hex'));
SELECT lo_from_bytea(900003, '');
SELECT lo_from_bytea(3000000000, 'an OID beyond 2^31');
COMMENT ON LARGE OBJECT 900001 IS 'commented';
ALTER LARGE OBJECT 900002 OWNER TO sample_owner;
GRANT SELECT ON LARGE OBJECT 900003 TO "sample reader";

CREATE PUBLICATION sample_publication FOR TABLE app.users;
ALTER DEFAULT PRIVILEGES IN SCHEMA app GRANT SELECT ON TABLES TO "sample reader";
CREATE FUNCTION app.on_ddl() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN END $$;
CREATE EVENT TRIGGER sample_ddl ON ddl_command_end EXECUTE FUNCTION app.on_ddl();
