BEGIN TRANSACTION;
CREATE TABLE artefact (
	id INTEGER NOT NULL, 
	cadence_id INTEGER NOT NULL, 
	candidate_id INTEGER, 
	kind VARCHAR(16) NOT NULL, 
	path TEXT NOT NULL, 
	sha256 VARCHAR(64) NOT NULL, 
	bytes BIGINT, 
	PRIMARY KEY (id), 
	FOREIGN KEY(cadence_id) REFERENCES cadence (id), 
	FOREIGN KEY(candidate_id) REFERENCES candidate (id)
);
INSERT INTO "artefact" VALUES(1,1,1,'waterfall','a.png','',NULL);
CREATE TABLE attempt (
	id INTEGER NOT NULL, 
	cadence_id INTEGER NOT NULL, 
	number INTEGER NOT NULL, 
	token VARCHAR(32) NOT NULL, 
	worker TEXT, 
	progress FLOAT, 
	started_at FLOAT NOT NULL, 
	ended_at FLOAT, 
	outcome VARCHAR(12), 
	cause TEXT, 
	service TEXT, 
	PRIMARY KEY (id), 
	FOREIGN KEY(cadence_id) REFERENCES cadence (id), 
	UNIQUE (token)
);
INSERT INTO "attempt" VALUES(1,1,1,'432c4901c9f64cd985a3082e407be299',NULL,1.0,1.79597216597401046749e+09,1.79597216600201272968e+09,'done',NULL,NULL);
CREATE TABLE cadence (
	id INTEGER NOT NULL, 
	"key" VARCHAR(64) NOT NULL, 
	state VARCHAR(12) NOT NULL, 
	why TEXT, 
	target TEXT NOT NULL, 
	pattern VARCHAR(6), 
	tstart FLOAT NOT NULL, 
	band_low_mhz FLOAT NOT NULL, 
	band_high_mhz FLOAT NOT NULL, 
	attempts INTEGER NOT NULL, 
	token VARCHAR(32), 
	until FLOAT, 
	retry_at FLOAT, 
	created_at FLOAT NOT NULL, 
	ready_at FLOAT, 
	ended_at FLOAT, 
	run JSON, 
	landed_at FLOAT, 
	stable_at FLOAT, 
	PRIMARY KEY (id), 
	UNIQUE ("key")
);
INSERT INTO "cadence" VALUES(1,'18d1a167ca93446085b2bb9ac72a11a2','done',NULL,'T','ABACAD',59000.0,1.0,2.0,1,'432c4901c9f64cd985a3082e407be299',1.79597222596101522445e+09,NULL,1.79597216593498444558e+09,1.79597216593498444558e+09,1795972165.986,'{"counts": {"windows": 1}}',NULL,NULL);
INSERT INTO "cadence" VALUES(2,'e6fc2e60ae7f4444ab7ff93a5360fac3','ready',NULL,'T','ABACAD',59000.0,1.0,2.0,0,NULL,NULL,NULL,1.79597216635099506381e+09,1.79597216635099506381e+09,NULL,NULL,NULL,NULL);
CREATE TABLE cadence_file (
	cadence_id INTEGER NOT NULL, 
	position INTEGER NOT NULL, 
	observation VARCHAR(40) NOT NULL, 
	PRIMARY KEY (cadence_id, position), 
	FOREIGN KEY(cadence_id) REFERENCES cadence (id)
);
INSERT INTO "cadence_file" VALUES(1,0,'18d1a167ca93446085b2bb9ac72a11a2-0');
INSERT INTO "cadence_file" VALUES(1,1,'18d1a167ca93446085b2bb9ac72a11a2-1');
INSERT INTO "cadence_file" VALUES(1,2,'18d1a167ca93446085b2bb9ac72a11a2-2');
INSERT INTO "cadence_file" VALUES(1,3,'18d1a167ca93446085b2bb9ac72a11a2-3');
INSERT INTO "cadence_file" VALUES(1,4,'18d1a167ca93446085b2bb9ac72a11a2-4');
INSERT INTO "cadence_file" VALUES(1,5,'18d1a167ca93446085b2bb9ac72a11a2-5');
INSERT INTO "cadence_file" VALUES(2,0,'e6fc2e60ae7f4444ab7ff93a5360fac3-0');
INSERT INTO "cadence_file" VALUES(2,1,'e6fc2e60ae7f4444ab7ff93a5360fac3-1');
INSERT INTO "cadence_file" VALUES(2,2,'e6fc2e60ae7f4444ab7ff93a5360fac3-2');
INSERT INTO "cadence_file" VALUES(2,3,'e6fc2e60ae7f4444ab7ff93a5360fac3-3');
INSERT INTO "cadence_file" VALUES(2,4,'e6fc2e60ae7f4444ab7ff93a5360fac3-4');
INSERT INTO "cadence_file" VALUES(2,5,'e6fc2e60ae7f4444ab7ff93a5360fac3-5');
CREATE TABLE candidate (
	id INTEGER NOT NULL, 
	cadence_id INTEGER NOT NULL, 
	attempt_id INTEGER NOT NULL, 
	frequency_mhz FLOAT NOT NULL, 
	drift_rate_hz_s FLOAT NOT NULL, 
	curvature_hz_s2 FLOAT, 
	bandwidth_hz FLOAT NOT NULL, 
	snr JSON NOT NULL, 
	probability FLOAT NOT NULL, 
	latents JSON NOT NULL, 
	proposer_score FLOAT, 
	target TEXT NOT NULL, 
	tstart_mjd FLOAT NOT NULL, 
	mode VARCHAR(16) NOT NULL, 
	release_name TEXT NOT NULL, 
	release_sha256 VARCHAR(64) NOT NULL, 
	code_version TEXT NOT NULL, 
	config_sha256 VARCHAR(64) NOT NULL, 
	picture TEXT, 
	probability_spread FLOAT, 
	strangeness FLOAT, 
	binning INTEGER, 
	allocations TEXT, 
	clock TEXT, 
	comb_spacing_hz FLOAT, 
	comb_teeth INTEGER, 
	neighbours INTEGER, 
	nearest_hz FLOAT, 
	valid JSON, 
	note TEXT, 
	scored_by VARCHAR(8), 
	seen_before INTEGER, 
	on_separation_arcmin FLOAT, 
	latents_f32 BLOB, 
	ra_deg FLOAT, 
	dec_deg FLOAT, 
	telescope VARCHAR(32), 
	barycentric_mhz FLOAT, 
	barycentric_drift_hz_s FLOAT, 
	drift_nhz FLOAT, 
	joint_snr FLOAT, 
	valid_share FLOAT, 
	label_in_force VARCHAR(16), 
	muted TEXT, 
	seen_cadences INTEGER, 
	seen_of INTEGER, 
	seen_targets INTEGER, 
	last_seen_mjd FLOAT, 
	kind VARCHAR(32), 
	kind_probability FLOAT, 
	PRIMARY KEY (id), 
	FOREIGN KEY(cadence_id) REFERENCES cadence (id), 
	FOREIGN KEY(attempt_id) REFERENCES attempt (id), 
	FOREIGN KEY(release_sha256) REFERENCES release (sha256)
);
INSERT INTO "candidate" VALUES(1,1,1,8419.3197,0.35,NULL,4.0,'[20.0, 0.1, 21.0, 0.2, 19.0, 0.3]',0.97,'[0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]',21.0,'HIP99427',59103.02,'windows','r1','abababababababababababababababababababababababababababababababab','0','cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd','a.png',NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,0,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL);
CREATE TABLE file (
	id INTEGER NOT NULL, 
	path TEXT NOT NULL, 
	size BIGINT NOT NULL, 
	mtime_ns BIGINT NOT NULL, 
	inode VARCHAR(24) NOT NULL, 
	state VARCHAR(12) NOT NULL, 
	present BOOLEAN NOT NULL, 
	cause TEXT, 
	observation VARCHAR(40), 
	tstart FLOAT, 
	header JSON, 
	changed_at FLOAT NOT NULL, 
	look_at FLOAT, 
	grouped BOOLEAN NOT NULL, 
	stable_at FLOAT, 
	PRIMARY KEY (id), 
	UNIQUE (path)
);
INSERT INTO "file" VALUES(1,'/d/18d1a167ca93446085b2bb9ac72a11a2-0',1,1,'1','valid',1,NULL,'18d1a167ca93446085b2bb9ac72a11a2-0',NULL,NULL,1.79597216593599033358e+09,NULL,0,NULL);
INSERT INTO "file" VALUES(2,'/d/18d1a167ca93446085b2bb9ac72a11a2-1',1,1,'1','valid',1,NULL,'18d1a167ca93446085b2bb9ac72a11a2-1',NULL,NULL,1.79597216593599033358e+09,NULL,0,NULL);
INSERT INTO "file" VALUES(3,'/d/18d1a167ca93446085b2bb9ac72a11a2-2',1,1,'1','valid',1,NULL,'18d1a167ca93446085b2bb9ac72a11a2-2',NULL,NULL,1.79597216593699598313e+09,NULL,0,NULL);
INSERT INTO "file" VALUES(4,'/d/18d1a167ca93446085b2bb9ac72a11a2-3',1,1,'1','valid',1,NULL,'18d1a167ca93446085b2bb9ac72a11a2-3',NULL,NULL,1.79597216593699598313e+09,NULL,0,NULL);
INSERT INTO "file" VALUES(5,'/d/18d1a167ca93446085b2bb9ac72a11a2-4',1,1,'1','valid',1,NULL,'18d1a167ca93446085b2bb9ac72a11a2-4',NULL,NULL,1.79597216593699598313e+09,NULL,0,NULL);
INSERT INTO "file" VALUES(6,'/d/18d1a167ca93446085b2bb9ac72a11a2-5',1,1,'1','valid',1,NULL,'18d1a167ca93446085b2bb9ac72a11a2-5',NULL,NULL,1.79597216593800187113e+09,NULL,0,NULL);
INSERT INTO "file" VALUES(7,'/d/e6fc2e60ae7f4444ab7ff93a5360fac3-0',1,1,'1','valid',1,NULL,'e6fc2e60ae7f4444ab7ff93a5360fac3-0',NULL,NULL,1.79597216636600208279e+09,NULL,0,NULL);
INSERT INTO "file" VALUES(8,'/d/e6fc2e60ae7f4444ab7ff93a5360fac3-1',1,1,'1','valid',1,NULL,'e6fc2e60ae7f4444ab7ff93a5360fac3-1',NULL,NULL,1.79597216636700773243e+09,NULL,0,NULL);
INSERT INTO "file" VALUES(9,'/d/e6fc2e60ae7f4444ab7ff93a5360fac3-2',1,1,'1','valid',1,NULL,'e6fc2e60ae7f4444ab7ff93a5360fac3-2',NULL,NULL,1.79597216636700773243e+09,NULL,0,NULL);
INSERT INTO "file" VALUES(10,'/d/e6fc2e60ae7f4444ab7ff93a5360fac3-3',1,1,'1','valid',1,NULL,'e6fc2e60ae7f4444ab7ff93a5360fac3-3',NULL,NULL,1.79597216636700773243e+09,NULL,0,NULL);
INSERT INTO "file" VALUES(11,'/d/e6fc2e60ae7f4444ab7ff93a5360fac3-4',1,1,'1','valid',1,NULL,'e6fc2e60ae7f4444ab7ff93a5360fac3-4',NULL,NULL,1.79597216636700773243e+09,NULL,0,NULL);
INSERT INTO "file" VALUES(12,'/d/e6fc2e60ae7f4444ab7ff93a5360fac3-5',1,1,'1','valid',1,NULL,'e6fc2e60ae7f4444ab7ff93a5360fac3-5',NULL,NULL,1.79597216636801362043e+09,NULL,0,NULL);
CREATE TABLE heartbeat (
	name VARCHAR(128) NOT NULL, 
	at FLOAT NOT NULL, 
	period_s FLOAT NOT NULL, 
	pid INTEGER NOT NULL, 
	host TEXT NOT NULL, 
	facts JSON NOT NULL, 
	PRIMARY KEY (name)
);
CREATE TABLE injected_candidate (
	id INTEGER NOT NULL, 
	injection_id INTEGER NOT NULL, 
	cadence_id INTEGER NOT NULL, 
	made_at FLOAT NOT NULL, 
	"row" JSON NOT NULL, 
	files JSON NOT NULL, 
	PRIMARY KEY (id), 
	FOREIGN KEY(cadence_id) REFERENCES cadence (id)
);
CREATE TABLE injected_label (
	id INTEGER NOT NULL, 
	injected_candidate_id INTEGER NOT NULL, 
	label VARCHAR(16) NOT NULL, 
	"by" TEXT NOT NULL, 
	at FLOAT NOT NULL, 
	reason TEXT, 
	note TEXT, 
	blind BOOLEAN, 
	PRIMARY KEY (id), 
	UNIQUE (injected_candidate_id, "by"), 
	FOREIGN KEY(injected_candidate_id) REFERENCES injected_candidate (id)
);
CREATE TABLE injection (
	id INTEGER NOT NULL, 
	kind VARCHAR(8) NOT NULL, 
	name TEXT NOT NULL, 
	cadence_id INTEGER, 
	frequency_mhz FLOAT NOT NULL, 
	drift_rate_hz_s FLOAT NOT NULL, 
	width_hz FLOAT NOT NULL, 
	snr FLOAT NOT NULL, 
	made_at FLOAT NOT NULL, 
	ended_at FLOAT, 
	recovered BOOLEAN, 
	probability FLOAT, 
	release_sha256 VARCHAR(64), 
	PRIMARY KEY (id), 
	UNIQUE (name)
);
CREATE TABLE label (
	id INTEGER NOT NULL, 
	candidate_id INTEGER NOT NULL, 
	label VARCHAR(16) NOT NULL, 
	"by" TEXT, 
	at FLOAT NOT NULL, 
	reason TEXT, 
	note TEXT, 
	via VARCHAR(16), 
	blind BOOLEAN, 
	undone_at FLOAT, 
	PRIMARY KEY (id), 
	FOREIGN KEY(candidate_id) REFERENCES candidate (id)
);
CREATE TABLE meta (
	"key" VARCHAR(64) NOT NULL, 
	value TEXT NOT NULL, 
	PRIMARY KEY ("key")
);
INSERT INTO "meta" VALUES('schema_version','12');
CREATE TABLE occupancy (
	id INTEGER NOT NULL, 
	cadence_id INTEGER NOT NULL, 
	telescope_id INTEGER NOT NULL, 
	target TEXT NOT NULL, 
	tstart FLOAT NOT NULL, 
	band_low_mhz FLOAT NOT NULL, 
	band_high_mhz FLOAT NOT NULL, 
	bin_hz FLOAT NOT NULL, 
	lines INTEGER NOT NULL, 
	bins BLOB NOT NULL, 
	PRIMARY KEY (id), 
	FOREIGN KEY(cadence_id) REFERENCES cadence (id)
);
CREATE TABLE outbox (
	id INTEGER NOT NULL, 
	cadence_id INTEGER NOT NULL, 
	poster VARCHAR(16) NOT NULL, 
	uid VARCHAR(32) NOT NULL, 
	state VARCHAR(12) NOT NULL, 
	text TEXT NOT NULL, 
	pictures JSON NOT NULL, 
	uploaded INTEGER NOT NULL, 
	attempts INTEGER NOT NULL, 
	doubtful BOOLEAN NOT NULL, 
	ts TEXT, 
	cause TEXT, 
	until FLOAT, 
	retry_at FLOAT, 
	created_at FLOAT NOT NULL, 
	sent_at FLOAT, 
	sequence TEXT, 
	parent_id INTEGER, 
	digest BOOLEAN, 
	posted_at FLOAT, 
	stale_at FLOAT, 
	edited_at FLOAT, 
	PRIMARY KEY (id), 
	UNIQUE (cadence_id, poster), 
	FOREIGN KEY(cadence_id) REFERENCES cadence (id), 
	UNIQUE (uid)
);
CREATE TABLE release (
	sha256 VARCHAR(64) NOT NULL, 
	name TEXT NOT NULL, 
	first_used_at FLOAT NOT NULL, 
	PRIMARY KEY (sha256)
);
INSERT INTO "release" VALUES('abababababababababababababababababababababababababababababababab','r1',1.7959721659969835281e+09);
CREATE TABLE shadow (
	id INTEGER NOT NULL, 
	cadence_id INTEGER NOT NULL, 
	release_name TEXT NOT NULL, 
	release_sha256 VARCHAR(64) NOT NULL, 
	at FLOAT NOT NULL, 
	found JSON NOT NULL, 
	PRIMARY KEY (id), 
	FOREIGN KEY(cadence_id) REFERENCES cadence (id)
);
CREATE INDEX ix_file_state ON file (state);
CREATE INDEX ix_file_tstart ON file (tstart);
CREATE INDEX ix_file_observation ON file (observation);
CREATE INDEX cadence_queue ON cadence (state, tstart);
CREATE INDEX ix_injection_made_at ON injection (made_at);
CREATE INDEX ix_cadence_file_observation ON cadence_file (observation);
CREATE INDEX ix_attempt_cadence_id ON attempt (cadence_id);
CREATE INDEX ix_occupancy_tstart ON occupancy (tstart);
CREATE INDEX ix_occupancy_cadence_id ON occupancy (cadence_id);
CREATE INDEX ix_outbox_posted_at ON outbox (posted_at);
CREATE INDEX ix_outbox_cadence_id ON outbox (cadence_id);
CREATE INDEX ix_outbox_edited_at ON outbox (edited_at);
CREATE INDEX ix_outbox_state ON outbox (state);
CREATE INDEX ix_outbox_stale_at ON outbox (stale_at);
CREATE INDEX ix_shadow_cadence_id ON shadow (cadence_id);
CREATE INDEX candidate_night ON candidate (tstart_mjd, frequency_mhz, probability, joint_snr, label_in_force, cadence_id, attempt_id);
CREATE INDEX ix_candidate_cadence_id ON candidate (cadence_id);
CREATE INDEX ix_candidate_frequency_mhz ON candidate (frequency_mhz);
CREATE INDEX candidate_target ON candidate (target, tstart_mjd, cadence_id, attempt_id);
CREATE INDEX candidate_probability ON candidate (probability, id);
CREATE INDEX candidate_label ON candidate (label_in_force, probability, id);
CREATE INDEX ix_candidate_attempt_id ON candidate (attempt_id);
CREATE INDEX ix_artefact_candidate_id ON artefact (candidate_id);
CREATE INDEX ix_artefact_cadence_id ON artefact (cadence_id);
CREATE INDEX ix_label_candidate_id ON label (candidate_id);
CREATE INDEX ix_label_via ON label (via);
CREATE INDEX candidate_filter ON candidate (label_in_force, telescope, release_name, allocations, comb_teeth, seen_cadences, kind, tstart_mjd, cadence_id, attempt_id, probability, joint_snr, frequency_mhz, drift_rate_hz_s, drift_nhz, bandwidth_hz, strangeness, muted, ra_deg, dec_deg);
CREATE INDEX ix_injected_candidate_cadence_id ON injected_candidate (cadence_id);
CREATE INDEX ix_injected_candidate_made_at ON injected_candidate (made_at);
CREATE INDEX ix_injected_label_injected_candidate_id ON injected_label (injected_candidate_id);
COMMIT;
