/* Harmonics, splines and their derivatives of pairs, from their vectors. */

typedef struct {
    T *harmonics, *jacobian; /* (pairs, HARMONICS), (pairs, HARMONICS, 3) */
    T *length, *unit;        /* (pairs), (pairs, 3) */
    int32_t *knot;           /* (pairs) */
    T *spline, *slope;       /* (pairs, 4) */
} Geometry;

static void some_pairs(const T *vectors, int64_t start, int count, T width, int intervals, const Geometry *to) {
    lvec r[3], value[HARMONICS], gradient[3][HARMONICS], length, inverse;
    for (int i = 0; i < EDGE_LANES; i++) {
        /* the lanes beyond the last pair repeat it */
        const T *v = vectors + 3 * (start + (i < count ? i : count - 1));
        for (int axis = 0; axis < 3; axis++) r[axis][i] = v[axis];
    }
    const lvec square = r[0] * r[0] + r[1] * r[1] + r[2] * r[2];
    for (int i = 0; i < EDGE_LANES; i++) length[i] = (T)sqrt((double)square[i]);
    inverse = 1 / length;
    for (int axis = 0; axis < 3; axis++) r[axis] *= inverse;
    harmonics_of(r[0], r[1], r[2], value, gradient);
    for (int k = 0; k < HARMONICS; k++) {
        /* d(unit)/d(vector) = (1 - unit unit^T) / length */
        const lvec along = gradient[0][k] * r[0] + gradient[1][k] * r[1] + gradient[2][k] * r[2];
        for (int axis = 0; axis < 3; axis++) gradient[axis][k] = (gradient[axis][k] - along * r[axis]) * inverse;
    }
    for (int i = 0; i < count; i++) {
        const int64_t e = start + i;
        to->length[e] = length[i];
        for (int axis = 0; axis < 3; axis++) to->unit[3 * e + axis] = r[axis][i];
        for (int k = 0; k < HARMONICS; k++) {
            to->harmonics[e * HARMONICS + k] = value[k][i];
            for (int axis = 0; axis < 3; axis++)
                to->jacobian[(e * HARMONICS + k) * 3 + axis] = gradient[axis][k][i];
        }
        const T place = length[i] / width;
        /* A NaN goes on in t. */
        const int knot = place > 0 ? (place < (T)intervals ? (int)place : intervals - 1) : 0;
        const T t = place - (T)knot, s = 1 - t;
        to->knot[e] = knot;
        T *b = to->spline + 4 * e, *d = to->slope + 4 * e;
        b[0] = s * s * s / 6;
        b[1] = (3 * t * t * t - 6 * t * t + 4) / 6;
        b[2] = (3 * s * s * s - 6 * s * s + 4) / 6;
        b[3] = t * t * t / 6;
        d[0] = -s * s / (2 * width);
        d[1] = (3 * t * t - 4 * t) / (2 * width);
        d[2] = (4 * s - 3 * s * s) / (2 * width);
        d[3] = t * t / (2 * width);
    }
}

void make_geometry(const T *vectors, int64_t pairs, double width, int intervals, const Geometry *to, int threads) {
    const int64_t chunks = (pairs + EDGE_LANES - 1) / EDGE_LANES;
#ifdef _OPENMP
#pragma omp parallel for schedule(static) num_threads(threads) if (chunks > 64)
#else
    (void)threads;
#endif
    for (int64_t i = 0; i < chunks; i++) {
        const int64_t start = i * EDGE_LANES;
        const int count = pairs - start < EDGE_LANES ? (int)(pairs - start) : EDGE_LANES;
        some_pairs(vectors, start, count, (T)width, intervals, to);
    }
}
