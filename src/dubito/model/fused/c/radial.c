/* Radial networks at the knots of their splines: multilayer perceptrons without biases, and their gradients.

   One network for each layer of interactions; its last map gives CHANNELS values for each path. Hidden widths are
   multiples of LANES.
*/
#define MOST_MAPS 8

typedef struct {
    int32_t n_maps, n_paths;
    int32_t widths[MOST_MAPS]; /* inputs of each map */
    const T *weights[MOST_MAPS]; /* of each map (members, inputs, outputs) */
    int64_t member_strides[MOST_MAPS];
    double scales[MOST_MAPS];
    T *gradients[MOST_MAPS]; /* (members, inputs, outputs) */
    T *table;                /* (members, n_paths, n_knots, CHANNELS): values, or derivatives by them */
    T *hidden;               /* (members, n_free, sum of hidden widths) before activation, kept */
} Radial;

typedef struct {
    T *plain[MOST_MAPS], *transposed[MOST_MAPS], *values[MOST_MAPS], *slopes[2];
} RadialWork;

static inline int radial_outputs(const Radial *net, int map) {
    return map + 1 < net->n_maps ? net->widths[map + 1] : net->n_paths * CHANNELS;
}

static void place_radial(const Radial *net, int n_free, Arena *arena, RadialWork *work) {
    int widest = net->widths[0];
    for (int i = 0; i < net->n_maps; i++) {
        const int64_t size = (int64_t)net->widths[i] * radial_outputs(net, i);
        work->plain[i] = take(arena, size);
        work->transposed[i] = take(arena, size);
        work->values[i] = take(arena, (int64_t)n_free * net->widths[i]);
        widest = net->widths[i] > widest ? net->widths[i] : widest;
    }
    for (int i = 0; i < 2; i++) work->slopes[i] = take(arena, (int64_t)n_free * widest);
}

/* Scale and pack the maps; the last one path by path: (paths, inputs, CHANNELS) and (paths, CHANNELS, inputs). */
static void pack_radial(const Radial *net, int member, RadialWork *work) {
    for (int i = 0; i < net->n_maps; i++) {
        const int inputs = net->widths[i], outputs = radial_outputs(net, i);
        const int last = i + 1 == net->n_maps, block = last ? CHANNELS : outputs;
        const T *value = net->weights[i] + member * net->member_strides[i];
        const T scale = (T)net->scales[i];
        for (int first = 0; first < outputs; first += block) {
            T *plain = work->plain[i] + (int64_t)first * inputs, *transposed = work->transposed[i] + (int64_t)first * inputs;
            for (int a = 0; a < inputs; a++)
                for (int b = 0; b < block; b++) {
                    const T scaled = scale * value[(int64_t)a * outputs + first + b];
                    plain[a * block + b] = scaled;
                    transposed[b * inputs + a] = scaled;
                }
        }
    }
}

static inline Block flat(T *data, int64_t width) { return (Block){data, width, 0}; }

static void activate(const T *before, T *after, T *slope, int64_t n, T norm) {
    for (int64_t i = 0; i < n; i += LANES) {
        const vec z = LOAD(before + i);
        STORE(after + i, norm * silu(z));
        if (slope) STORE(slope + i, LOAD(slope + i) * norm * silu_slope(z));
    }
}

static T *radial_hidden(const Radial *net, int member, int n_free) {
    int64_t width = 0;
    for (int i = 1; i < net->n_maps; i++) width += net->widths[i];
    return net->hidden + member * width * n_free;
}

static void radial_forward(const Radial *net, int member, Rows rows, int n_knots, const T *basis, T norm,
                           const RadialWork *work) {
    const int n = rows.n_atoms;
    T *hidden = radial_hidden(net, member, n);
    T *x = (T *)basis;
    for (int i = 0; i + 1 < net->n_maps; i++) {
        const int outputs = net->widths[i + 1];
        multiply(rows, flat(x, net->widths[i]), net->widths[i], work->plain[i], outputs, flat(hidden, outputs), 0);
        activate(hidden, work->values[i + 1], NULL, (int64_t)n * outputs, norm);
        x = work->values[i + 1];
        hidden += (int64_t)n * outputs;
    }
    const int last = net->n_maps - 1, inputs = net->widths[last];
    for (int p = 0; p < net->n_paths; p++) {
        T *to = net->table + ((int64_t)member * net->n_paths + p) * n_knots * CHANNELS;
        multiply(rows, flat(x, inputs), inputs, work->plain[last] + (int64_t)p * inputs * CHANNELS, CHANNELS,
                 flat(to, CHANNELS), 0);
        memset(to + (int64_t)n * CHANNELS, 0, sizeof(T) * (size_t)((n_knots - n) * CHANNELS));
    }
}

static void scale_gradient(T *gradient, int64_t size, double scale) {
    for (int64_t i = 0; i < size; i++) gradient[i] *= (T)scale;
}

static void radial_backward(const Radial *net, int member, Rows rows, int n_knots, const T *basis, T norm,
                            RadialWork *work) {
    const int n = rows.n_atoms, last = net->n_maps - 1, inputs = net->widths[last];
    T *start = radial_hidden(net, member, n), *hidden = start;
    work->values[0] = (T *)basis;
    for (int i = 1; i <= last; i++) {
        activate(hidden, work->values[i], NULL, (int64_t)n * net->widths[i], norm);
        hidden += (int64_t)n * net->widths[i];
    }
    T *slope = work->slopes[0], *other = work->slopes[1];
    /* The last map, path by path, into the transposed pack's memory; then back to its own order. */
    T *packed = work->plain[last];
    memset(packed, 0, sizeof(T) * (size_t)inputs * (size_t)net->n_paths * CHANNELS);
    for (int p = 0; p < net->n_paths; p++) {
        T *from = net->table + ((int64_t)member * net->n_paths + p) * n_knots * CHANNELS;
        correlate(rows, flat(work->values[last], inputs), inputs, flat(from, CHANNELS), CHANNELS,
                  packed + (int64_t)p * inputs * CHANNELS);
        if (last)
            multiply(rows, flat(from, CHANNELS), CHANNELS, work->transposed[last] + (int64_t)p * inputs * CHANNELS,
                     inputs, flat(slope, inputs), p > 0);
    }
    const int64_t row = (int64_t)net->n_paths * CHANNELS;
    T *to = net->gradients[last] + member * inputs * row;
    for (int p = 0; p < net->n_paths; p++)
        for (int a = 0; a < inputs; a++)
            for (int c = 0; c < CHANNELS; c++)
                to[a * row + p * CHANNELS + c] =
                    (T)net->scales[last] * packed[((int64_t)p * inputs + a) * CHANNELS + c];
    for (int i = last - 1; i >= 0; i--) {
        const int outputs = net->widths[i + 1];
        hidden -= (int64_t)n * outputs;
        activate(hidden, work->values[i + 1], slope, (int64_t)n * outputs, norm);
        T *gradient = net->gradients[i] + (int64_t)member * net->widths[i] * outputs;
        memset(gradient, 0, sizeof(T) * (size_t)net->widths[i] * (size_t)outputs);
        correlate(rows, flat(work->values[i], net->widths[i]), net->widths[i], flat(slope, outputs), outputs, gradient);
        scale_gradient(gradient, (int64_t)net->widths[i] * outputs, net->scales[i]);
        if (i) {
            multiply(rows, flat(slope, outputs), outputs, work->transposed[i], net->widths[i],
                     flat(other, net->widths[i]), 0);
            T *swap = slope;
            slope = other;
            other = swap;
        }
    }
}

/* Fill the tables of all networks and members (`backward` 0), or the gradients from those of the tables (1). */
int radial_tables(const Radial *nets, int n_nets, int n_members, const T *basis, int n_free, int n_knots, double norm,
                  int backward, int threads) {
    int failed = 0;
    int32_t *all = malloc(sizeof(int32_t) * (size_t)n_free);
    if (!all) return 1;
    for (int i = 0; i < n_free; i++) all[i] = i;
    const Rows rows = {all, n_free, 1};
#ifdef _OPENMP
#pragma omp parallel for schedule(static) num_threads(threads) reduction(| : failed)
#else
    (void)threads;
#endif
    for (int i = 0; i < n_nets * n_members; i++) {
        const Radial *net = &nets[i % n_nets];
        RadialWork work;
        Arena count = {0};
        place_radial(net, n_free, &count, &work);
        if (!reserve(&work_arena, count.used)) {
            failed = 1;
            continue;
        }
        place_radial(net, n_free, &work_arena, &work);
        pack_radial(net, i / n_nets, &work);
        if (backward) radial_backward(net, i / n_nets, rows, n_knots, basis, (T)norm, &work);
        else radial_forward(net, i / n_nets, rows, n_knots, basis, (T)norm, &work);
    }
    free(all);
    return failed;
}
