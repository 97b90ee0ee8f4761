/* What Python hands over (ctypes mirrors these structures in library.py: change both), and the workspace. */

/* The pairs of a batch as the sweeps see them; `sums`, `spline_tangent` and `harmonics_tangent` belong to a task. */
typedef struct {
    const int64_t *first;       /* (atoms + 1) first pair of each center */
    const int64_t *neighbor;    /* (pairs) */
    const T *harmonics;         /* (HARMONICS, stride) */
    int64_t stride;
    const int32_t *knot;        /* (pairs) first of four knots */
    const T *spline;            /* (pairs, 4) values of the four splines */
    const T *spline_slope;      /* (pairs, 4) their derivatives by distance, 1/A */
    const T *spline_tangent;    /* (pairs of task, 4) */
    const T *harmonics_tangent; /* (HARMONICS, tangent_stride) */
    int64_t tangent_stride, tangent_start;
    T *sums; /* (pairs of tile, HARMONICS + 1, LANES) derivatives by harmonics and distance, channels not yet summed */
    int64_t sums_start;
} Pairs;

typedef struct {
    int harmonic;
    void (*values)(const Pairs *, int64_t, int64_t, int64_t, int64_t, int64_t, const T *, const T *, T *);
    void (*gradients)(const Pairs *, int64_t, int64_t, int64_t, int64_t, int64_t, const T *, const T *, const T *, T *);
    void (*tangents)(const Pairs *, int64_t, int64_t, int64_t, int64_t, int64_t, const T *, const T *, const T *, T *);
    void (*curvatures)(const Pairs *, int64_t, int64_t, int64_t, int64_t, int64_t, const T *, const T *, const T *,
                       const T *, const T *, T *, T *);
} Coupling;

typedef struct {
    int32_t coupling; /* index into `couplings` */
    int32_t source;   /* first component in the features */
    int32_t message;  /* first component in the message */
    int32_t step;     /* components from one order m to the next in the message */
} Path;

/* One irreducible representation of the output. */
typedef struct {
    int32_t dim;
    int32_t kind;      /* 0: scalars and gates, 1: odd scalars, 2: gated */
    int32_t gate;      /* which gate, for kind 2 */
    int32_t component; /* first component in the output */
    int32_t source;    /* first component of the same representation in the input, -1: none */
    int32_t message;   /* first component of its messages */
    int32_t inputs;    /* messages that reach it */
    int32_t width;     /* channels after the map: CHANNELS, or with the gates more */
    int32_t mapped;    /* where its mapped components start, in elements */
    int32_t mix, connect; /* indices of its matrices, -1: none */
} Target;

typedef struct {
    int32_t in, out, messages, mapped; /* components of input, output, messages; elements after the map */
    int32_t n_paths, n_targets, n_sources, mix;
    const Path *paths;
    const Target *targets;
    const int32_t *sources; /* (n_sources, 2): first component and dimension */
} Layer;

/* A stacked parameter (members, blocks, inputs, outputs); `scale` is multiplied in when it is used. */
typedef struct {
    int32_t blocks, inputs, outputs;
    double scale;
    const T *value;
    int64_t member_stride;
    T *gradient; /* (members, blocks, inputs, outputs) */
} Matrix;

typedef struct {
    int32_t n_layers, n_matrices, n_species, n_knots;
    const Layer *layers;
    Matrix *matrices;       /* the last one is the embedding, (1, species, CHANNELS) */
    const T *const *tables; /* (layers) of (members, paths, n_knots, CHANNELS) */
    T *const *table_gradients;
    double silu_norm, tanh_norm;
} Network;

typedef struct {
    int64_t n_structures, n_atoms;
    const int64_t *atom_ptr, *species;
    Pairs pairs;
    const T *jacobian; /* (pairs, HARMONICS, 3) derivative of the harmonics by the vector, 1/A */
    const T *unit;     /* (pairs, 3) */
    const T *vectors;  /* (pairs, 3) A, or NULL: no virial */
} Batch;

typedef struct {
    const T *readout;     /* (members, atoms, CHANNELS) derivative of the energy by the last features, or NULL */
    T *features;          /* (members, atoms, CHANNELS) */
    T *forces, *virial;   /* (members, atoms, 3), (members, structures, 9) or NULL */
    T *state;             /* kept for `curvature`, or NULL */
    const T *of_features, *of_forces, *of_virial; /* the loss's derivatives by the above */
    T *of_readout;        /* (members, atoms, CHANNELS) */
} Fields;
