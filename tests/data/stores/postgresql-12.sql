CREATE TABLE public.artefact (
    id integer NOT NULL,
    cadence_id integer NOT NULL,
    candidate_id integer,
    kind character varying(16) NOT NULL,
    path text NOT NULL,
    sha256 character varying(64) NOT NULL,
    bytes bigint
);
CREATE SEQUENCE public.artefact_id_seq
    AS integer
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
ALTER SEQUENCE public.artefact_id_seq OWNED BY public.artefact.id;
CREATE TABLE public.attempt (
    id integer NOT NULL,
    cadence_id integer NOT NULL,
    number integer NOT NULL,
    token character varying(32) NOT NULL,
    worker text,
    progress double precision,
    started_at double precision NOT NULL,
    ended_at double precision,
    outcome character varying(12),
    cause text,
    service text
);
CREATE SEQUENCE public.attempt_id_seq
    AS integer
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
ALTER SEQUENCE public.attempt_id_seq OWNED BY public.attempt.id;
CREATE TABLE public.cadence (
    id integer NOT NULL,
    key character varying(64) NOT NULL,
    state character varying(12) NOT NULL,
    why text,
    target text NOT NULL,
    pattern character varying(12),
    tstart double precision NOT NULL,
    band_low_mhz double precision NOT NULL,
    band_high_mhz double precision NOT NULL,
    attempts integer NOT NULL,
    token character varying(32),
    until double precision,
    retry_at double precision,
    created_at double precision NOT NULL,
    ready_at double precision,
    ended_at double precision,
    run json,
    landed_at double precision,
    stable_at double precision
);
CREATE TABLE public.cadence_file (
    cadence_id integer NOT NULL,
    "position" integer NOT NULL,
    observation character varying(40) NOT NULL
);
CREATE SEQUENCE public.cadence_id_seq
    AS integer
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
ALTER SEQUENCE public.cadence_id_seq OWNED BY public.cadence.id;
CREATE TABLE public.candidate (
    id integer NOT NULL,
    cadence_id integer NOT NULL,
    attempt_id integer NOT NULL,
    frequency_mhz double precision NOT NULL,
    drift_rate_hz_s double precision NOT NULL,
    curvature_hz_s2 double precision,
    bandwidth_hz double precision NOT NULL,
    snr json NOT NULL,
    probability double precision NOT NULL,
    latents json NOT NULL,
    proposer_score double precision,
    target text NOT NULL,
    tstart_mjd double precision NOT NULL,
    mode character varying(16) NOT NULL,
    release_name text NOT NULL,
    release_sha256 character varying(64) NOT NULL,
    code_version text NOT NULL,
    config_sha256 character varying(64) NOT NULL,
    picture text,
    probability_spread double precision,
    strangeness double precision,
    binning integer,
    allocations text,
    clock text,
    comb_spacing_hz double precision,
    comb_teeth integer,
    neighbours integer,
    nearest_hz double precision,
    valid json,
    note text,
    scored_by character varying(8),
    seen_before integer,
    on_separation_arcmin double precision,
    latents_f32 bytea,
    ra_deg double precision,
    dec_deg double precision,
    telescope character varying(32),
    barycentric_mhz double precision,
    barycentric_drift_hz_s double precision,
    drift_nhz double precision,
    joint_snr double precision,
    valid_share double precision,
    label_in_force character varying(16),
    muted text,
    seen_cadences integer,
    seen_of integer,
    seen_targets integer,
    last_seen_mjd double precision,
    kind character varying(32),
    kind_probability double precision
);
CREATE SEQUENCE public.candidate_id_seq
    AS integer
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
ALTER SEQUENCE public.candidate_id_seq OWNED BY public.candidate.id;
CREATE TABLE public.file (
    id integer NOT NULL,
    path text NOT NULL,
    size bigint NOT NULL,
    mtime_ns bigint NOT NULL,
    inode character varying(24) NOT NULL,
    state character varying(12) NOT NULL,
    present boolean NOT NULL,
    cause text,
    observation character varying(40),
    tstart double precision,
    header json,
    changed_at double precision NOT NULL,
    look_at double precision,
    grouped boolean NOT NULL,
    stable_at double precision
);
CREATE SEQUENCE public.file_id_seq
    AS integer
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
ALTER SEQUENCE public.file_id_seq OWNED BY public.file.id;
CREATE TABLE public.heartbeat (
    name character varying(128) NOT NULL,
    at double precision NOT NULL,
    period_s double precision NOT NULL,
    pid integer NOT NULL,
    host text NOT NULL,
    facts json NOT NULL
);
CREATE TABLE public.injected_candidate (
    id integer NOT NULL,
    injection_id integer NOT NULL,
    cadence_id integer NOT NULL,
    made_at double precision NOT NULL,
    "row" json NOT NULL,
    files json NOT NULL
);
CREATE TABLE public.injected_label (
    id integer NOT NULL,
    injected_candidate_id integer NOT NULL,
    label character varying(16) NOT NULL,
    by text NOT NULL,
    at double precision NOT NULL,
    reason text,
    note text,
    blind boolean
);
CREATE SEQUENCE public.injected_label_id_seq
    AS integer
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
ALTER SEQUENCE public.injected_label_id_seq OWNED BY public.injected_label.id;
CREATE TABLE public.injection (
    id integer NOT NULL,
    kind character varying(8) NOT NULL,
    name text NOT NULL,
    cadence_id integer,
    frequency_mhz double precision NOT NULL,
    drift_rate_hz_s double precision NOT NULL,
    width_hz double precision NOT NULL,
    snr double precision NOT NULL,
    made_at double precision NOT NULL,
    ended_at double precision,
    recovered boolean,
    probability double precision,
    release_sha256 character varying(64)
);
CREATE SEQUENCE public.injection_id_seq
    AS integer
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
ALTER SEQUENCE public.injection_id_seq OWNED BY public.injection.id;
CREATE TABLE public.label (
    id integer NOT NULL,
    candidate_id integer NOT NULL,
    label character varying(16) NOT NULL,
    by text,
    at double precision NOT NULL,
    reason text,
    note text,
    via character varying(16),
    blind boolean,
    undone_at double precision
);
CREATE SEQUENCE public.label_id_seq
    AS integer
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
ALTER SEQUENCE public.label_id_seq OWNED BY public.label.id;
CREATE TABLE public.meta (
    key character varying(64) NOT NULL,
    value text NOT NULL
);
CREATE TABLE public.occupancy (
    id integer NOT NULL,
    cadence_id integer NOT NULL,
    telescope_id integer NOT NULL,
    target text NOT NULL,
    tstart double precision NOT NULL,
    band_low_mhz double precision NOT NULL,
    band_high_mhz double precision NOT NULL,
    bin_hz double precision NOT NULL,
    lines integer NOT NULL,
    bins bytea NOT NULL
);
CREATE SEQUENCE public.occupancy_id_seq
    AS integer
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
ALTER SEQUENCE public.occupancy_id_seq OWNED BY public.occupancy.id;
CREATE TABLE public.outbox (
    id integer NOT NULL,
    cadence_id integer NOT NULL,
    poster character varying(16) NOT NULL,
    uid character varying(32) NOT NULL,
    state character varying(12) NOT NULL,
    text text NOT NULL,
    pictures json NOT NULL,
    uploaded integer NOT NULL,
    attempts integer NOT NULL,
    doubtful boolean NOT NULL,
    ts text,
    cause text,
    until double precision,
    retry_at double precision,
    created_at double precision NOT NULL,
    sent_at double precision,
    sequence text,
    parent_id integer,
    digest boolean,
    posted_at double precision,
    stale_at double precision,
    edited_at double precision
);
CREATE SEQUENCE public.outbox_id_seq
    AS integer
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
ALTER SEQUENCE public.outbox_id_seq OWNED BY public.outbox.id;
CREATE TABLE public.release (
    sha256 character varying(64) NOT NULL,
    name text NOT NULL,
    first_used_at double precision NOT NULL
);
CREATE TABLE public.shadow (
    id integer NOT NULL,
    cadence_id integer NOT NULL,
    release_name text NOT NULL,
    release_sha256 character varying(64) NOT NULL,
    at double precision NOT NULL,
    found json NOT NULL
);
CREATE SEQUENCE public.shadow_id_seq
    AS integer
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
ALTER SEQUENCE public.shadow_id_seq OWNED BY public.shadow.id;
ALTER TABLE ONLY public.artefact ALTER COLUMN id SET DEFAULT nextval('public.artefact_id_seq'::regclass);
ALTER TABLE ONLY public.attempt ALTER COLUMN id SET DEFAULT nextval('public.attempt_id_seq'::regclass);
ALTER TABLE ONLY public.cadence ALTER COLUMN id SET DEFAULT nextval('public.cadence_id_seq'::regclass);
ALTER TABLE ONLY public.candidate ALTER COLUMN id SET DEFAULT nextval('public.candidate_id_seq'::regclass);
ALTER TABLE ONLY public.file ALTER COLUMN id SET DEFAULT nextval('public.file_id_seq'::regclass);
ALTER TABLE ONLY public.injected_label ALTER COLUMN id SET DEFAULT nextval('public.injected_label_id_seq'::regclass);
ALTER TABLE ONLY public.injection ALTER COLUMN id SET DEFAULT nextval('public.injection_id_seq'::regclass);
ALTER TABLE ONLY public.label ALTER COLUMN id SET DEFAULT nextval('public.label_id_seq'::regclass);
ALTER TABLE ONLY public.occupancy ALTER COLUMN id SET DEFAULT nextval('public.occupancy_id_seq'::regclass);
ALTER TABLE ONLY public.outbox ALTER COLUMN id SET DEFAULT nextval('public.outbox_id_seq'::regclass);
ALTER TABLE ONLY public.shadow ALTER COLUMN id SET DEFAULT nextval('public.shadow_id_seq'::regclass);
INSERT INTO public.artefact VALUES (1, 1, 1, 'waterfall', 'a.png', '', NULL);
INSERT INTO public.attempt VALUES (1, 1, 1, '10ebbec9a6604b6ba0e91496d0e17f6f', NULL, 1, 1795972170.974096, 1795972170.988979, 'done', NULL, NULL);
INSERT INTO public.cadence VALUES (1, '7b244e4ec0934a809171820127644408', 'done', NULL, 'T', 'ABACAD', 59000, 1, 2, 1, '10ebbec9a6604b6ba0e91496d0e17f6f', 1795972230.972975, NULL, 1795972170.956721, 1795972170.956765, 1795972170.976611, '{"counts": {"windows": 1}}', NULL, NULL);
INSERT INTO public.cadence VALUES (2, '930f88e878db445db28e602056b3d6b9', 'ready', NULL, 'T', 'ABACAD', 59000, 1, 2, 0, NULL, NULL, NULL, 1795972170.990365, 1795972170.990368, NULL, NULL, NULL, NULL);
INSERT INTO public.cadence_file VALUES (1, 0, '7b244e4ec0934a809171820127644408-0');
INSERT INTO public.cadence_file VALUES (1, 1, '7b244e4ec0934a809171820127644408-1');
INSERT INTO public.cadence_file VALUES (1, 2, '7b244e4ec0934a809171820127644408-2');
INSERT INTO public.cadence_file VALUES (1, 3, '7b244e4ec0934a809171820127644408-3');
INSERT INTO public.cadence_file VALUES (1, 4, '7b244e4ec0934a809171820127644408-4');
INSERT INTO public.cadence_file VALUES (1, 5, '7b244e4ec0934a809171820127644408-5');
INSERT INTO public.cadence_file VALUES (2, 0, '930f88e878db445db28e602056b3d6b9-0');
INSERT INTO public.cadence_file VALUES (2, 1, '930f88e878db445db28e602056b3d6b9-1');
INSERT INTO public.cadence_file VALUES (2, 2, '930f88e878db445db28e602056b3d6b9-2');
INSERT INTO public.cadence_file VALUES (2, 3, '930f88e878db445db28e602056b3d6b9-3');
INSERT INTO public.cadence_file VALUES (2, 4, '930f88e878db445db28e602056b3d6b9-4');
INSERT INTO public.cadence_file VALUES (2, 5, '930f88e878db445db28e602056b3d6b9-5');
INSERT INTO public.candidate VALUES (1, 1, 1, 8419.3197, 0.35, NULL, 4, '[20.0, 0.1, 21.0, 0.2, 19.0, 0.3]', 0.97, '[0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]', 21, 'HIP99427', 59103.02, 'windows', 'r1', 'abababababababababababababababababababababababababababababababab', '0', 'cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd', 'a.png', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 0, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
INSERT INTO public.file VALUES (1, '/d/7b244e4ec0934a809171820127644408-0', 1, 1, '1', 'valid', true, NULL, '7b244e4ec0934a809171820127644408-0', NULL, NULL, 1795972170.959532, NULL, false, NULL);
INSERT INTO public.file VALUES (2, '/d/7b244e4ec0934a809171820127644408-1', 1, 1, '1', 'valid', true, NULL, '7b244e4ec0934a809171820127644408-1', NULL, NULL, 1795972170.961162, NULL, false, NULL);
INSERT INTO public.file VALUES (3, '/d/7b244e4ec0934a809171820127644408-2', 1, 1, '1', 'valid', true, NULL, '7b244e4ec0934a809171820127644408-2', NULL, NULL, 1795972170.962753, NULL, false, NULL);
INSERT INTO public.file VALUES (4, '/d/7b244e4ec0934a809171820127644408-3', 1, 1, '1', 'valid', true, NULL, '7b244e4ec0934a809171820127644408-3', NULL, NULL, 1795972170.963467, NULL, false, NULL);
INSERT INTO public.file VALUES (5, '/d/7b244e4ec0934a809171820127644408-4', 1, 1, '1', 'valid', true, NULL, '7b244e4ec0934a809171820127644408-4', NULL, NULL, 1795972170.964306, NULL, false, NULL);
INSERT INTO public.file VALUES (6, '/d/7b244e4ec0934a809171820127644408-5', 1, 1, '1', 'valid', true, NULL, '7b244e4ec0934a809171820127644408-5', NULL, NULL, 1795972170.965817, NULL, false, NULL);
INSERT INTO public.file VALUES (7, '/d/930f88e878db445db28e602056b3d6b9-0', 1, 1, '1', 'valid', true, NULL, '930f88e878db445db28e602056b3d6b9-0', NULL, NULL, 1795972170.991466, NULL, false, NULL);
INSERT INTO public.file VALUES (8, '/d/930f88e878db445db28e602056b3d6b9-1', 1, 1, '1', 'valid', true, NULL, '930f88e878db445db28e602056b3d6b9-1', NULL, NULL, 1795972170.992666, NULL, false, NULL);
INSERT INTO public.file VALUES (9, '/d/930f88e878db445db28e602056b3d6b9-2', 1, 1, '1', 'valid', true, NULL, '930f88e878db445db28e602056b3d6b9-2', NULL, NULL, 1795972170.993507, NULL, false, NULL);
INSERT INTO public.file VALUES (10, '/d/930f88e878db445db28e602056b3d6b9-3', 1, 1, '1', 'valid', true, NULL, '930f88e878db445db28e602056b3d6b9-3', NULL, NULL, 1795972170.99488, NULL, false, NULL);
INSERT INTO public.file VALUES (11, '/d/930f88e878db445db28e602056b3d6b9-4', 1, 1, '1', 'valid', true, NULL, '930f88e878db445db28e602056b3d6b9-4', NULL, NULL, 1795972170.996114, NULL, false, NULL);
INSERT INTO public.file VALUES (12, '/d/930f88e878db445db28e602056b3d6b9-5', 1, 1, '1', 'valid', true, NULL, '930f88e878db445db28e602056b3d6b9-5', NULL, NULL, 1795972170.99682, NULL, false, NULL);
INSERT INTO public.meta VALUES ('schema_version', '12');
INSERT INTO public.release VALUES ('abababababababababababababababababababababababababababababababab', 'r1', 1795972170.980835);
SELECT pg_catalog.setval('public.artefact_id_seq', 1, true);
SELECT pg_catalog.setval('public.attempt_id_seq', 1, true);
SELECT pg_catalog.setval('public.cadence_id_seq', 2, true);
SELECT pg_catalog.setval('public.candidate_id_seq', 1, true);
SELECT pg_catalog.setval('public.file_id_seq', 12, true);
SELECT pg_catalog.setval('public.injected_label_id_seq', 1, false);
SELECT pg_catalog.setval('public.injection_id_seq', 1, false);
SELECT pg_catalog.setval('public.label_id_seq', 1, false);
SELECT pg_catalog.setval('public.occupancy_id_seq', 1, false);
SELECT pg_catalog.setval('public.outbox_id_seq', 1, false);
SELECT pg_catalog.setval('public.shadow_id_seq', 1, false);
ALTER TABLE ONLY public.artefact
    ADD CONSTRAINT artefact_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.attempt
    ADD CONSTRAINT attempt_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.attempt
    ADD CONSTRAINT attempt_token_key UNIQUE (token);
ALTER TABLE ONLY public.cadence_file
    ADD CONSTRAINT cadence_file_pkey PRIMARY KEY (cadence_id, "position");
ALTER TABLE ONLY public.cadence
    ADD CONSTRAINT cadence_key_key UNIQUE (key);
ALTER TABLE ONLY public.cadence
    ADD CONSTRAINT cadence_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.candidate
    ADD CONSTRAINT candidate_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.file
    ADD CONSTRAINT file_path_key UNIQUE (path);
ALTER TABLE ONLY public.file
    ADD CONSTRAINT file_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.heartbeat
    ADD CONSTRAINT heartbeat_pkey PRIMARY KEY (name);
ALTER TABLE ONLY public.injected_candidate
    ADD CONSTRAINT injected_candidate_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.injected_label
    ADD CONSTRAINT injected_label_injected_candidate_id_by_key UNIQUE (injected_candidate_id, by);
ALTER TABLE ONLY public.injected_label
    ADD CONSTRAINT injected_label_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.injection
    ADD CONSTRAINT injection_name_key UNIQUE (name);
ALTER TABLE ONLY public.injection
    ADD CONSTRAINT injection_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.label
    ADD CONSTRAINT label_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.meta
    ADD CONSTRAINT meta_pkey PRIMARY KEY (key);
ALTER TABLE ONLY public.occupancy
    ADD CONSTRAINT occupancy_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.outbox
    ADD CONSTRAINT outbox_cadence_id_poster_key UNIQUE (cadence_id, poster);
ALTER TABLE ONLY public.outbox
    ADD CONSTRAINT outbox_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.outbox
    ADD CONSTRAINT outbox_uid_key UNIQUE (uid);
ALTER TABLE ONLY public.release
    ADD CONSTRAINT release_pkey PRIMARY KEY (sha256);
ALTER TABLE ONLY public.shadow
    ADD CONSTRAINT shadow_pkey PRIMARY KEY (id);
CREATE INDEX cadence_queue ON public.cadence USING btree (state, tstart);
CREATE INDEX candidate_filter ON public.candidate USING btree (label_in_force, telescope, release_name, allocations, comb_teeth, seen_cadences, kind, tstart_mjd, cadence_id, attempt_id, probability, joint_snr, frequency_mhz, drift_rate_hz_s, drift_nhz, bandwidth_hz, strangeness, muted, ra_deg, dec_deg);
CREATE INDEX candidate_label ON public.candidate USING btree (label_in_force, probability, id);
CREATE INDEX candidate_night ON public.candidate USING btree (tstart_mjd, frequency_mhz, probability, joint_snr, label_in_force, cadence_id, attempt_id);
CREATE INDEX candidate_probability ON public.candidate USING btree (probability, id);
CREATE INDEX ix_artefact_cadence_id ON public.artefact USING btree (cadence_id);
CREATE INDEX ix_artefact_candidate_id ON public.artefact USING btree (candidate_id);
CREATE INDEX ix_attempt_cadence_id ON public.attempt USING btree (cadence_id);
CREATE INDEX ix_cadence_file_observation ON public.cadence_file USING btree (observation);
CREATE INDEX ix_candidate_attempt_id ON public.candidate USING btree (attempt_id);
CREATE INDEX ix_candidate_cadence_id ON public.candidate USING btree (cadence_id);
CREATE INDEX ix_candidate_frequency_mhz ON public.candidate USING btree (frequency_mhz);
CREATE INDEX ix_file_observation ON public.file USING btree (observation);
CREATE INDEX ix_file_state ON public.file USING btree (state);
CREATE INDEX ix_file_tstart ON public.file USING btree (tstart);
CREATE INDEX ix_injected_candidate_cadence_id ON public.injected_candidate USING btree (cadence_id);
CREATE INDEX ix_injected_candidate_made_at ON public.injected_candidate USING btree (made_at);
CREATE INDEX ix_injected_label_injected_candidate_id ON public.injected_label USING btree (injected_candidate_id);
CREATE INDEX ix_injection_made_at ON public.injection USING btree (made_at);
CREATE INDEX ix_label_candidate_id ON public.label USING btree (candidate_id);
CREATE INDEX ix_label_via ON public.label USING btree (via);
CREATE INDEX ix_occupancy_cadence_id ON public.occupancy USING btree (cadence_id);
CREATE INDEX ix_occupancy_tstart ON public.occupancy USING btree (tstart);
CREATE INDEX ix_outbox_cadence_id ON public.outbox USING btree (cadence_id);
CREATE INDEX ix_outbox_edited_at ON public.outbox USING btree (edited_at);
CREATE INDEX ix_outbox_posted_at ON public.outbox USING btree (posted_at);
CREATE INDEX ix_outbox_stale_at ON public.outbox USING btree (stale_at);
CREATE INDEX ix_outbox_state ON public.outbox USING btree (state);
CREATE INDEX ix_shadow_cadence_id ON public.shadow USING btree (cadence_id);
ALTER TABLE ONLY public.artefact
    ADD CONSTRAINT artefact_cadence_id_fkey FOREIGN KEY (cadence_id) REFERENCES public.cadence(id);
ALTER TABLE ONLY public.artefact
    ADD CONSTRAINT artefact_candidate_id_fkey FOREIGN KEY (candidate_id) REFERENCES public.candidate(id);
ALTER TABLE ONLY public.attempt
    ADD CONSTRAINT attempt_cadence_id_fkey FOREIGN KEY (cadence_id) REFERENCES public.cadence(id);
ALTER TABLE ONLY public.cadence_file
    ADD CONSTRAINT cadence_file_cadence_id_fkey FOREIGN KEY (cadence_id) REFERENCES public.cadence(id);
ALTER TABLE ONLY public.candidate
    ADD CONSTRAINT candidate_attempt_id_fkey FOREIGN KEY (attempt_id) REFERENCES public.attempt(id);
ALTER TABLE ONLY public.candidate
    ADD CONSTRAINT candidate_cadence_id_fkey FOREIGN KEY (cadence_id) REFERENCES public.cadence(id);
ALTER TABLE ONLY public.candidate
    ADD CONSTRAINT candidate_release_sha256_fkey FOREIGN KEY (release_sha256) REFERENCES public.release(sha256);
ALTER TABLE ONLY public.injected_candidate
    ADD CONSTRAINT injected_candidate_cadence_id_fkey FOREIGN KEY (cadence_id) REFERENCES public.cadence(id);
ALTER TABLE ONLY public.injected_label
    ADD CONSTRAINT injected_label_injected_candidate_id_fkey FOREIGN KEY (injected_candidate_id) REFERENCES public.injected_candidate(id);
ALTER TABLE ONLY public.label
    ADD CONSTRAINT label_candidate_id_fkey FOREIGN KEY (candidate_id) REFERENCES public.candidate(id);
ALTER TABLE ONLY public.occupancy
    ADD CONSTRAINT occupancy_cadence_id_fkey FOREIGN KEY (cadence_id) REFERENCES public.cadence(id);
ALTER TABLE ONLY public.outbox
    ADD CONSTRAINT outbox_cadence_id_fkey FOREIGN KEY (cadence_id) REFERENCES public.cadence(id);
ALTER TABLE ONLY public.shadow
    ADD CONSTRAINT shadow_cadence_id_fkey FOREIGN KEY (cadence_id) REFERENCES public.cadence(id);
