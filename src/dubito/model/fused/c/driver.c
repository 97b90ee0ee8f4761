/* Work space, tasks and threads; the two functions that Python calls. */

/* --- tasks -------------------------------------------------------------------------------------- */

typedef struct {
    int64_t *first; /* (n_groups + 1) structures */
    int64_t n_groups, total; /* total: cost of all tasks */
    int team; /* all threads work on one task at a time */
} Groups;

static int64_t cost_of(const Batch *b, int64_t s0, int64_t s1) {
    const int64_t a0 = b->atom_ptr[s0], a1 = b->atom_ptr[s1];
    return b->pairs.first[a1] - b->pairs.first[a0] + 8 * (a1 - a0) + 1;
}

/* The thread that takes a task: its middle lies in the thread's share of all costs. */
static int64_t thread_of(int64_t before, int64_t cost, int64_t total, int threads) {
    return (2 * before + cost) * threads / (2 * total);
}

/* Return how much more than its share the busiest thread would do. */
static double imbalance(const Batch *b, const Groups *groups, int n_members, int threads, int64_t total) {
    int64_t before = 0, most = 0, own = 0, last = -1;
    for (int64_t i = 0; i < groups->n_groups * n_members; i++) {
        const int64_t g = i % groups->n_groups, cost = cost_of(b, groups->first[g], groups->first[g + 1]);
        const int64_t thread = thread_of(before, cost, total, threads);
        own = thread == last ? own + cost : cost;
        last = thread;
        most = own > most ? own : most;
        before += cost;
    }
    return (double)most * threads / (double)total;
}

/* Groups follow from the batch and the threads asked for, so that both calls lay out the same state. */
static Groups make_groups(const Batch *b, int n_members, int threads) {
    Groups out = {malloc(sizeof(int64_t) * (size_t)(b->n_structures + 1)), 0, 0, 0};
    if (!out.first) return out;
    out.first[0] = 0;
    for (int64_t s = 0; s < b->n_structures; s++) {
        const int64_t atoms = b->atom_ptr[s + 1] - b->atom_ptr[out.first[out.n_groups]];
        if (atoms >= TILE / 2 || s + 1 == b->n_structures) out.first[++out.n_groups] = s + 1;
    }
    for (int64_t g = 0; g < out.n_groups; g++) out.total += cost_of(b, out.first[g], out.first[g + 1]);
    out.total *= n_members;
    /* Meeting after each layer costs a team little, but for the smallest batches. */
    if (threads > 1 && b->n_atoms >= TILE && imbalance(b, &out, n_members, threads, out.total) > 1.1) {
        out.team = 1;
        out.n_groups = 1;
        out.first[1] = b->n_structures;
    }
    return out;
}

static void set_range(Task *t, const Batch *b, const Groups *groups, int64_t group) {
    t->s0 = groups->first[group];
    t->s1 = groups->first[group + 1];
    t->a0 = b->atom_ptr[t->s0];
    t->a1 = b->atom_ptr[t->s1];
    t->e0 = b->pairs.first[t->a0];
    t->e1 = b->pairs.first[t->a1];
}

/* The largest of all layers, by kind: what one array for all of them must hold. */
typedef struct {
    int64_t messages, mapped, components;
} Widest;

static Widest widest_of(const Network *net) {
    Widest out = {0, 0, 1};
    for (int l = 0; l < net->n_layers; l++) {
        const Layer *layer = &net->layers[l];
        out.messages = layer->messages > out.messages ? layer->messages : out.messages;
        out.mapped = layer->mapped > out.mapped ? layer->mapped : out.mapped;
        out.components = layer->in > out.components ? layer->in : out.components;
        out.components = layer->out > out.components ? layer->out : out.components;
    }
    return out;
}

/* Place the arrays of a task; with an arena without memory, count them. */
static void place_state(Task *t, Arena *arena, int64_t n, int keep) {
    const Network *net = t->net;
    const Widest most = widest_of(net);
    T *shared[3] = {NULL, NULL, NULL};
    if (!keep) {
        shared[0] = take(arena, n * most.messages * CHANNELS);
        shared[1] = take(arena, n * most.mapped);
        shared[2] = take(arena, n * most.components * CHANNELS);
    }
    for (int l = 0; l < net->n_layers; l++) {
        const Layer *layer = &net->layers[l];
        LayerState *s = &t->state[l];
        s->x = take(arena, n * layer->in * CHANNELS);
        s->y = take(arena, n * layer->in * CHANNELS);
        s->mapped = take(arena, n * layer->mapped);
        s->out_adjoint = take(arena, n * layer->out * CHANNELS);
        s->message = keep ? take(arena, n * layer->messages * CHANNELS) : shared[0];
        s->message_adjoint = keep ? take(arena, n * layer->messages * CHANNELS) : shared[0];
        s->mapped_adjoint = keep ? take(arena, n * layer->mapped) : shared[1];
        s->y_adjoint = keep ? take(arena, n * layer->in * CHANNELS) : shared[2];
    }
}

static void place_work(Task *t, Arena *arena, int64_t n, int64_t pairs, int second) {
    const Network *net = t->net;
    const Widest most = widest_of(net);
    t->lambda_x = take(arena, n * most.components * CHANNELS);
    if (!second) {
        t->slopes = take(arena, pairs * (HARMONICS + 1));
        t->pull = take(arena, pairs * 3);
        return;
    }
    t->lambda_next = take(arena, n * most.components * CHANNELS);
    t->lambda_y = take(arena, n * most.components * CHANNELS);
    t->lambda_mapped = take(arena, n * most.mapped);
    t->lambda_message = take(arena, n * most.messages * CHANNELS);
    t->spline_tangent = take(arena, pairs * 4);
    t->pairs.tangent_stride = pairs + EDGES;
    t->harmonics_tangent = take(arena, HARMONICS * (pairs + EDGES));
    for (int l = 0; l < net->n_layers; l++) {
        const Layer *layer = &net->layers[l];
        LayerTangent *d = &t->tangent[l];
        d->x = take(arena, n * layer->in * CHANNELS);
        d->y = take(arena, n * layer->in * CHANNELS);
        d->message = take(arena, n * layer->messages * CHANNELS);
        d->mapped = take(arena, n * layer->mapped);
    }
}

/* Elements that `evaluate` keeps of one atom and member. */
static int64_t kept_elements(const Network *net) {
    int64_t out = 0;
    for (int l = 0; l < net->n_layers; l++) {
        const Layer *layer = &net->layers[l];
        out += (int64_t)CHANNELS * (3 * layer->in + 2 * layer->messages + layer->out) + 2 * (int64_t)layer->mapped;
    }
    return out;
}

/* What alignment takes in one task at the most: eight arrays a layer, and the start. */
static int64_t kept_slack(const Network *net) { return (8 * net->n_layers + 1) * (int64_t)(128 / sizeof(T)); }

/* Elements of the state of a batch. */
int64_t state_elements(const Network *net, int64_t n_members, int64_t n_structures, int64_t n_atoms) {
    return n_members * (n_atoms * kept_elements(net) + n_structures * kept_slack(net));
}

static void bind_pairs(Task *t, const Batch *b) {
    const int64_t stride = t->pairs.tangent_stride;
    t->pairs = b->pairs;
    t->pairs.tangent_start = t->e0;
    t->pairs.spline_tangent = t->spline_tangent;
    t->pairs.harmonics_tangent = t->harmonics_tangent;
    t->pairs.tangent_stride = stride;
}

/* --- weights ------------------------------------------------------------------------------------ */

static int64_t matrix_size(const Matrix *m) { return (int64_t)m->blocks * m->inputs * m->outputs; }

static void pack(const Matrix *m, int member, T *plain, T *transposed) {
    const T *value = m->value + member * m->member_stride;
    const T scale = (T)m->scale;
    for (int64_t i = 0; i < matrix_size(m); i++) plain[i] = scale * value[i];
    for (int b = 0; transposed && b < m->blocks; b++)
        for (int i = 0; i < m->inputs; i++)
            for (int o = 0; o < m->outputs; o++)
                transposed[((int64_t)b * m->outputs + o) * m->inputs + i] =
                    plain[((int64_t)b * m->inputs + i) * m->outputs + o];
}

/* Elements of all gradients of one member. */
static int64_t gradient_size(const Network *net) {
    int64_t out = 0;
    for (int i = 0; i < net->n_matrices; i++) out += matrix_size(&net->matrices[i]);
    for (int l = 0; l < net->n_layers; l++) out += (int64_t)net->layers[l].n_paths * net->n_knots * CHANNELS;
    return out;
}

static void bind_gradients(Task *t, T *buffer) {
    const Network *net = t->net;
    for (int i = 0; i < net->n_matrices; i++) {
        t->gradients[i] = buffer;
        buffer += matrix_size(&net->matrices[i]);
    }
    for (int l = 0; l < net->n_layers; l++) {
        t->table_gradients[l] = buffer;
        buffer += (int64_t)net->layers[l].n_paths * net->n_knots * CHANNELS;
    }
}

/* Add what the threads found, always in their order, so that the same number of threads gives the same bits. */
static void reduce(const Network *net, int member, int threads, T *const *buffers, int n_members) {
    int64_t at = 0;
    for (int i = 0; i < net->n_matrices + net->n_layers; i++) {
        const int table = i >= net->n_matrices, l = i - net->n_matrices;
        const int64_t size =
            table ? (int64_t)net->layers[l].n_paths * net->n_knots * CHANNELS : matrix_size(&net->matrices[i]);
        const T scale = table ? 1 : (T)net->matrices[i].scale;
        T *to = (table ? net->table_gradients[l] : net->matrices[i].gradient) + member * size;
        int found = 0;
        for (int k = 0; k < threads; k++) {
            const T *from = buffers[(int64_t)k * n_members + member];
            if (!from) continue;
            if (found++) for (int64_t j = 0; j < size; j++) to[j] += scale * from[at + j];
            else for (int64_t j = 0; j < size; j++) to[j] = scale * from[at + j];
        }
        if (!found) memset(to, 0, sizeof(T) * (size_t)size);
        at += size;
    }
}

/* --- the two calls ------------------------------------------------------------------------------ */

typedef struct {
    const Network *net;
    const Batch *batch;
    const Fields *fields;
    int n_members, threads, second, failed;
    Groups groups;
    T *packed;
    T **buffers; /* (threads, members) gradients */
} Call;

static void run_task(Task *t, const Call *call, const Team *team) {
    bind_pairs(t, call->batch);
    if (call->second) {
        tangent(t, team);
        curvature(t, team);
    } else {
        forward(t, team);
        if (call->fields->readout) reverse(t, team);
    }
}

/* Where the state of a task lies. */
static T *state_at(const Call *call, const Task *t) {
    const Batch *b = call->batch;
    const int64_t at = t->member * state_elements(call->net, 1, b->n_structures, b->n_atoms) +
                       t->a0 * kept_elements(call->net) + t->s0 * kept_slack(call->net);
    return call->fields->state + ((at + 15) & ~(int64_t)15);
}

static void bind_weights(Task *t, const Call *call) {
    const Network *net = call->net;
    int64_t size = 0;
    for (int i = 0; i < net->n_matrices; i++) size += matrix_size(&net->matrices[i]);
    T *at = call->packed + 2 * size * t->member;
    for (int i = 0; i < net->n_matrices; i++) {
        t->matrices[i] = at;
        t->transposed[i] = at + size;
        at += matrix_size(&net->matrices[i]);
    }
}

static void place(Task *t, const Call *call, Arena *arena) {
    if (call->fields->state) {
        Arena kept = {(char *)state_at(call, t), 0, 0};
        place_state(t, &kept, t->a1 - t->a0, 1);
    } else place_state(t, arena, t->a1 - t->a0, 0);
    place_work(t, arena, t->a1 - t->a0, t->e1 - t->e0, call->second);
}

/* Reserve what the largest of some tasks needs. */
static int reserve_for(Task *t, const Call *call, int64_t first, int64_t last) {
    size_t most = 0;
    for (int64_t i = first; i < last; i++) {
        Arena count = {0};
        t->member = (int)(i / call->groups.n_groups);
        set_range(t, call->batch, &call->groups, i % call->groups.n_groups);
        place(t, call, &count);
        most = count.used > most ? count.used : most;
    }
    return reserve(&work_arena, most);
}

/* Reserve what the pairs of any TILE atoms in a row need. */
static int reserve_tile(const Batch *b) {
    int64_t most = 0;
    for (int64_t a = 0; a < b->n_atoms; a++) {
        const int64_t end = a + TILE < b->n_atoms ? a + TILE : b->n_atoms;
        const int64_t pairs = b->pairs.first[end] - b->pairs.first[a];
        most = pairs > most ? pairs : most;
    }
    return reserve(&tile_arena, sizeof(T) * (size_t)((most + 1) * (HARMONICS + 1) * LANES));
}

static int own_gradients(const Call *call, int rank, int first_member, int last_member) {
    const int64_t size = gradient_size(call->net);
    const size_t bytes = sizeof(T) * (size_t)size * (size_t)(last_member - first_member + 1);
    if (!reserve(&gradient_arena, bytes)) return 0;
    memset(gradient_arena.data, 0, bytes);
    for (int m = first_member; m <= last_member; m++)
        call->buffers[(int64_t)rank * call->n_members + m] = (T *)gradient_arena.data + size * (m - first_member);
    return 1;
}

/* Each thread takes a run of tasks of about equal cost; member after member. */
static void run_apart(Call *call, Task *t, int rank) {
    const int64_t n = call->groups.n_groups * call->n_members;
    int64_t before = 0, first = n, last = 0;
    for (int64_t i = 0; i < n; i++) {
        const int64_t g = i % call->groups.n_groups;
        const int64_t cost = cost_of(call->batch, call->groups.first[g], call->groups.first[g + 1]);
        if (thread_of(before, cost, call->groups.total, call->threads) == rank) {
            first = i < first ? i : first;
            last = i + 1;
        }
        before += cost;
    }
    if (first >= last) return;
    const int members = (int)call->groups.n_groups;
    int ready = reserve_for(t, call, first, last) && (call->second || reserve_tile(call->batch));
    if (ready && call->second) ready = own_gradients(call, rank, (int)(first / members), (int)((last - 1) / members));
    if (!ready) {
        call->failed = 1;
        return;
    }
    const Team team = {0, 1};
    for (int64_t i = first; i < last; i++) {
        t->member = (int)(i / call->groups.n_groups);
        set_range(t, call->batch, &call->groups, i % call->groups.n_groups);
        work_arena.used = 0;
        place(t, call, &work_arena);
        bind_weights(t, call);
        if (call->second) bind_gradients(t, call->buffers[(int64_t)rank * call->n_members + t->member]);
        run_task(t, call, &team);
    }
}

/* All threads work on one task after another. The first thread's memory is everybody's. */
static void run_together(Call *call, Task *t, int rank, Arena *shared) {
    const Team team = {rank, call->threads};
    if (call->second ? !own_gradients(call, rank, 0, call->n_members - 1) : !reserve_tile(call->batch)) call->failed = 1;
    if (rank == 0) {
        if (!reserve_for(t, call, 0, call->groups.n_groups * call->n_members)) call->failed = 1;
        *shared = work_arena;
    }
    meet(&team);
    if (call->failed) return;
    for (int64_t i = 0; i < call->groups.n_groups * call->n_members; i++) {
        Arena arena = *shared;
        t->member = (int)(i / call->groups.n_groups);
        set_range(t, call->batch, &call->groups, i % call->groups.n_groups);
        place(t, call, &arena);
        bind_weights(t, call);
        if (call->second) bind_gradients(t, call->buffers[(int64_t)rank * call->n_members + t->member]);
        run_task(t, call, &team);
        meet(&team);
    }
}

static int run(Call *call) {
    const Network *net = call->net;
    int64_t size = 0;
    for (int i = 0; i < net->n_matrices; i++) size += matrix_size(&net->matrices[i]);
    call->groups = make_groups(call->batch, call->n_members, call->threads);
    call->packed = malloc(sizeof(T) * 2 * (size_t)(size * call->n_members) + 64);
    call->buffers = calloc((size_t)(call->threads * call->n_members), sizeof(T *));
    call->failed = !call->groups.first || !call->packed || !call->buffers;
    Arena shared = {0};
    if (!call->failed) {
#ifdef _OPENMP
#pragma omp parallel num_threads(call->threads)
#endif
        {
#ifdef _OPENMP
            const int rank = omp_get_thread_num();
#pragma omp single
            call->threads = omp_get_num_threads(); /* may be fewer than asked for */
#else
            const int rank = 0;
#endif
            LayerState states[net->n_layers];
            LayerTangent tangents[net->n_layers];
            const T *matrices[net->n_matrices], *transposed[net->n_matrices];
            T *gradients[net->n_matrices], *tables[net->n_layers];
            Task task = {.net = net, .batch = call->batch, .fields = *call->fields, .state = states,
                         .tangent = tangents, .matrices = matrices, .transposed = transposed,
                         .gradients = gradients, .table_gradients = tables};
#ifdef _OPENMP
#pragma omp for schedule(static)
#endif
            for (int m = 0; m < call->n_members; m++) {
                task.member = m;
                bind_weights(&task, call);
                for (int i = 0; i < net->n_matrices; i++)
                    pack(&net->matrices[i], m, (T *)matrices[i],
                         call->fields->readout || call->second ? (T *)transposed[i] : NULL);
            }
            if (call->groups.team) run_together(call, &task, rank, &shared);
            else run_apart(call, &task, rank);
            if (call->second) {
#ifdef _OPENMP
#pragma omp barrier
#pragma omp for schedule(static)
#endif
                for (int m = 0; m < call->n_members; m++) reduce(net, m, call->threads, call->buffers, call->n_members);
            }
        }
    }
    free(call->groups.first);
    free(call->packed);
    free(call->buffers);
    return call->failed;
}

static int threads_of(int threads) {
#ifdef _OPENMP
    return threads < 1 ? 1 : threads;
#else
    (void)threads;
    return 1;
#endif
}

/* Features, and with `readout` forces and virial. Returns 1 when memory ran out. */
int evaluate(const Network *net, const Batch *batch, const Fields *fields, int n_members, int threads) {
    Call call = {.net = net, .batch = batch, .fields = fields, .n_members = n_members,
                 .threads = threads_of(threads), .second = 0};
    return run(&call);
}

/* Gradients by weights, tables and readout of a function of what `evaluate` gave and kept. */
int differentiate(const Network *net, const Batch *batch, const Fields *fields, int n_members, int threads) {
    Call call = {.net = net, .batch = batch, .fields = fields, .n_members = n_members,
                 .threads = threads_of(threads), .second = 1};
    return run(&call);
}
