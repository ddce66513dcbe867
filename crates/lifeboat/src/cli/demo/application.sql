CREATE TABLE public.users (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL UNIQUE,
    joined timestamptz NOT NULL
);
CREATE TABLE public.memes (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    owner bigint NOT NULL REFERENCES public.users,
    title text NOT NULL,
    tags text[] NOT NULL
);
CREATE INDEX memes_tags ON public.memes USING gin (tags);
CREATE TABLE public.activations (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    meme bigint NOT NULL REFERENCES public.memes,
    by_user bigint NOT NULL REFERENCES public.users,
    at timestamptz NOT NULL,
    payload jsonb NOT NULL
);
CREATE INDEX activations_by_time ON public.activations (at);
CREATE TABLE public._prisma_migrations (
    id varchar(36) PRIMARY KEY,
    checksum varchar(64) NOT NULL,
    finished_at timestamptz,
    migration_name varchar(255) NOT NULL,
    logs text,
    rolled_back_at timestamptz,
    started_at timestamptz NOT NULL DEFAULT now(),
    applied_steps_count integer NOT NULL DEFAULT 0
);
INSERT INTO public._prisma_migrations (id, checksum, finished_at, migration_name, applied_steps_count)
SELECT md5(name), repeat(md5(name), 2), now(), name, 1
FROM unnest(ARRAY['20260101120000_init', '20260214093000_memes', '20260301080000_activations']) AS name;
INSERT INTO public.users (name, joined)
SELECT 'user' || n, now() - n * interval '1 hour' FROM generate_series(1, 5000) AS n;
INSERT INTO public.memes (owner, title, tags)
SELECT 1 + n % 5000, 'Meme number ' || n, ARRAY['tag' || n % 97, 'tag' || n % 31]
FROM generate_series(1, 20000) AS n;
INSERT INTO public.activations (meme, by_user, at, payload)
SELECT 1 + n % 20000, 1 + n * 7 % 5000, now() - n * interval '13 seconds',
       jsonb_build_object('volume', n % 100, 'note', md5(n::text))
FROM generate_series(1, 200000) AS n;
