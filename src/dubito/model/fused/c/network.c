/* The network in four sweeps over its layers.

   forward   features of all layers, and of the last one what energies are read from;
   reverse   derivative of the energies by the geometry: the forces;
   tangent   derivative of the features along a displacement (the loss's derivative by the forces);
   curvature reverse of forward and tangent together: the gradient of a loss of features and forces by all weights.

   The adjoints of the tangents in `curvature` are those that `reverse` made, so they are not computed again.
   One task is some whole structures and one member; a team is the threads that work on one task.
*/
#define TILE 32 /* atoms worked on together: their features stay in the cache */

typedef struct {
    T *x, *y, *message, *mapped;                                  /* forward */
    T *mapped_adjoint, *message_adjoint, *y_adjoint, *out_adjoint; /* reverse */
} LayerState;

typedef struct {
    T *x, *y, *message, *mapped;
} LayerTangent;

typedef struct {
    int rank, size;
} Team;

typedef struct {
    const Network *net;
    const Batch *batch;
    Fields fields;
    int member;
    int64_t s0, s1, a0, a1, e0, e1; /* structures, atoms and pairs of the task */
    Pairs pairs;
    const T **matrices, **transposed; /* packed, by matrix */
    LayerState *state;
    LayerTangent *tangent;
    T *slopes, *pull, *spline_tangent, *harmonics_tangent;
    T *lambda_x, *lambda_next, *lambda_mapped, *lambda_message, *lambda_y;
    T **gradients, **table_gradients; /* of the thread */
} Task;

static inline void meet(const Team *team) {
    if (team->size > 1) {
#ifdef _OPENMP
#pragma omp barrier
#endif
    }
}

/* --- tiles ------------------------------------------------------------------------------------- */

typedef struct {
    int64_t start, stop;
    int32_t atoms[TILE];    /* in the task, sorted by species */
    int32_t first[TILE + 1];
    int32_t species[TILE];
    int n_species;
} Tile;

/* Each thread of a team has a run of atoms, which it does tile by tile. */
static int64_t share_start(const Task *t, int rank, int size) { return t->a0 + (t->a1 - t->a0) * rank / size; }

static void make_tile(const Task *t, int64_t start, int64_t stop, Tile *tile) {
    tile->start = start;
    tile->stop = start + TILE < stop ? start + TILE : stop;
    int n = 0;
    tile->n_species = 0;
    for (int s = 0; s < t->net->n_species; s++) {
        const int before = n;
        for (int64_t a = tile->start; a < tile->stop; a++)
            if (t->batch->species[a] == s) tile->atoms[n++] = (int32_t)(a - t->a0);
        if (n > before) {
            tile->species[tile->n_species] = s;
            tile->first[tile->n_species++] = before;
        }
    }
    tile->first[tile->n_species] = n;
}

#define EACH_TILE(task, team)                                                                   \
    for (int64_t at = share_start(task, (team)->rank, (team)->size),                            \
                 end = share_start(task, (team)->rank + 1, (team)->size);                       \
         at < end && (make_tile(task, at, end, &tile), 1); at += TILE)

static inline Rows all_rows(const Tile *tile, int dim) {
    return (Rows){tile->atoms, (int)(tile->stop - tile->start), dim};
}

static inline Rows species_rows(const Tile *tile, int i, int dim) {
    return (Rows){tile->atoms + tile->first[i], tile->first[i + 1] - tile->first[i], dim};
}

static inline Block components(T *data, int width, int first, int step) {
    return (Block){data + (int64_t)first * CHANNELS, (int64_t)width * CHANNELS, (int64_t)step * CHANNELS};
}

static inline Block mapped_rows(const Layer *layer, const Target *target, T *mapped) {
    return (Block){mapped + target->mapped, layer->mapped, target->width};
}

static void clear(const Task *t, const Tile *tile, T *data, int64_t width) {
    memset(data + (tile->start - t->a0) * width, 0, sizeof(T) * (size_t)((tile->stop - tile->start) * width));
}

/* --- the parts of a layer ----------------------------------------------------------------------- */

/* Mix the channels of each representation: y = x W, or with the transposed matrices added to `to`. */
static void mix(const Task *t, const Layer *layer, const Tile *tile, T *from, T *to, int transposed) {
    const Matrix *matrix = &t->net->matrices[layer->mix];
    const T *packed = (transposed ? t->transposed : t->matrices)[layer->mix];
    for (int i = 0; i < layer->n_sources; i++) {
        const int first = layer->sources[2 * i], dim = layer->sources[2 * i + 1];
        multiply(all_rows(tile, dim), components(from, layer->in, first, 1), CHANNELS,
                 packed + (int64_t)i * matrix->inputs * matrix->outputs, CHANNELS,
                 components(to, layer->in, first, 1), transposed);
    }
}

static inline Block message_rows(const Layer *layer, const Target *target, T *message) {
    return components(message, layer->messages, target->message, target->inputs);
}

/* Map messages and the atom's own features to the output: mapped = message W + x V(species). */
static void map_out(const Task *t, const Layer *layer, const Tile *tile, T *message, T *x, T *mapped) {
    for (int i = 0; i < layer->n_targets; i++) {
        const Target *target = &layer->targets[i];
        const Block to = mapped_rows(layer, target, mapped);
        multiply(all_rows(tile, target->dim), message_rows(layer, target, message), target->inputs * CHANNELS,
                 t->matrices[target->mix], target->width, to, 0);
        if (target->connect < 0) continue;
        for (int s = 0; s < tile->n_species; s++)
            multiply(species_rows(tile, s, target->dim), components(x, layer->in, target->source, 1), CHANNELS,
                     t->matrices[target->connect] + (int64_t)tile->species[s] * CHANNELS * target->width,
                     target->width, to, 1);
    }
}

/* The adjoint of map_out; what reaches x is written, not added. */
static void map_out_adjoint(const Task *t, const Layer *layer, const Tile *tile, T *mapped, T *message, T *x) {
    clear(t, tile, x, (int64_t)layer->in * CHANNELS);
    for (int i = 0; i < layer->n_targets; i++) {
        const Target *target = &layer->targets[i];
        const Block from = mapped_rows(layer, target, mapped);
        multiply(all_rows(tile, target->dim), from, target->width, t->transposed[target->mix],
                 target->inputs * CHANNELS, message_rows(layer, target, message), 0);
        if (target->connect < 0) continue;
        for (int s = 0; s < tile->n_species; s++)
            multiply(species_rows(tile, s, target->dim), from, target->width,
                     t->transposed[target->connect] + (int64_t)tile->species[s] * CHANNELS * target->width,
                     CHANNELS, components(x, layer->in, target->source, 1), 1);
    }
}

/* Add the gradients of the matrices of map_out for messages and features that met these adjoints. */
static void map_out_gradient(const Task *t, const Layer *layer, const Tile *tile, T *message, T *x, T *adjoint) {
    for (int i = 0; i < layer->n_targets; i++) {
        const Target *target = &layer->targets[i];
        const Block to = mapped_rows(layer, target, adjoint);
        correlate(all_rows(tile, target->dim), message_rows(layer, target, message), target->inputs * CHANNELS, to,
                  target->width, t->gradients[target->mix]);
        if (target->connect < 0) continue;
        for (int s = 0; s < tile->n_species; s++)
            correlate(species_rows(tile, s, target->dim), components(x, layer->in, target->source, 1), CHANNELS, to,
                      target->width,
                      t->gradients[target->connect] + (int64_t)tile->species[s] * CHANNELS * target->width);
    }
}

static void mix_gradient(const Task *t, const Layer *layer, const Tile *tile, T *x, T *adjoint) {
    for (int i = 0; i < layer->n_sources; i++) {
        const int first = layer->sources[2 * i], dim = layer->sources[2 * i + 1];
        correlate(all_rows(tile, dim), components(x, layer->in, first, 1), CHANNELS,
                  components(adjoint, layer->in, first, 1), CHANNELS,
                  t->gradients[layer->mix] + (int64_t)i * CHANNELS * CHANNELS);
    }
}

#define EACH_PATH(layer) for (int path_index = 0; path_index < (layer)->n_paths; path_index++)

static inline int64_t table_start(const Task *t, const Layer *layer, int path) {
    return ((int64_t)t->member * layer->n_paths + path) * t->net->n_knots * CHANNELS;
}

#include "gate.h"

/* --- the sweeps --------------------------------------------------------------------------------- */

/* Arrays of a task start at its first atom; the pairs know the atoms of the whole batch. */
#define FROM_BATCH(data, width) ((data) - t->a0 * (int64_t)(width) * CHANNELS)

static void forward(Task *t, const Team *team) {
    const Network *net = t->net;
    const T *embedding = t->matrices[net->n_matrices - 1];
    Tile tile;
    EACH_TILE(t, team) {
        for (int64_t a = tile.start; a < tile.stop; a++)
            memcpy(t->state[0].x + (a - t->a0) * CHANNELS, embedding + t->batch->species[a] * CHANNELS,
                   sizeof(T) * CHANNELS);
    }
    for (int l = 0; l < net->n_layers; l++) {
        const Layer *layer = &net->layers[l];
        LayerState *s = &t->state[l];
        T *out = l + 1 < net->n_layers ? t->state[l + 1].x
                                       : t->fields.features + ((int64_t)t->member * t->batch->n_atoms + t->a0) * CHANNELS;
        EACH_TILE(t, team) {
                mix(t, layer, &tile, s->x, s->y, 0);
        }
        meet(team);
        EACH_TILE(t, team) {
                clear(t, &tile, s->message, (int64_t)layer->messages * CHANNELS);
            EACH_PATH(layer) {
                const Path *path = &layer->paths[path_index];
                couplings[path->coupling].values(
                    &t->pairs, tile.start, tile.stop, (int64_t)layer->in * CHANNELS, (int64_t)layer->messages * CHANNELS,
                    (int64_t)path->step * CHANNELS, FROM_BATCH(s->y, layer->in) + path->source * CHANNELS,
                    net->tables[l] + table_start(t, layer, path_index),
                    FROM_BATCH(s->message, layer->messages) + path->message * CHANNELS);
            }
            map_out(t, layer, &tile, s->message, s->x, s->mapped);
            gate(t, layer, &tile, s->mapped, out);
        }
    }
}

static void pull_atoms(Task *t, const Team *team);

/* Where the pairs of a tile add up, channel by channel; own memory of the thread, reserved by the driver. */
static void start_sums(Task *t, const Tile *tile) {
    const int64_t first = t->batch->pairs.first[tile->start], last = t->batch->pairs.first[tile->stop];
    t->pairs.sums = (T *)tile_arena.data;
    t->pairs.sums_start = first;
    memset(t->pairs.sums, 0, sizeof(T) * (size_t)((last - first) * (HARMONICS + 1) * LANES));
}

/* Sum over channels what the paths of a layer left there. */
static void add_sums(Task *t, const Tile *tile) {
    const int64_t first = t->batch->pairs.first[tile->start], last = t->batch->pairs.first[tile->stop];
    T *to = t->slopes + (first - t->e0) * (HARMONICS + 1);
    for (int64_t i = 0; i < (last - first) * (HARMONICS + 1); i++) to[i] += total(LOAD(t->pairs.sums + i * LANES));
}

static void reverse(Task *t, const Team *team) {
    const Network *net = t->net;
    Tile tile;
    EACH_TILE(t, team) {
        const int64_t first = t->batch->pairs.first[tile.start], last = t->batch->pairs.first[tile.stop];
        memset(t->slopes + (first - t->e0) * (HARMONICS + 1), 0, sizeof(T) * (size_t)((last - first) * (HARMONICS + 1)));
        const int64_t row = ((int64_t)t->member * t->batch->n_atoms + tile.start) * CHANNELS;
        memcpy(t->state[net->n_layers - 1].out_adjoint + (tile.start - t->a0) * CHANNELS, t->fields.readout + row,
               sizeof(T) * (size_t)((tile.stop - tile.start) * CHANNELS));
    }
    for (int l = net->n_layers - 1; l >= 0; l--) {
        const Layer *layer = &net->layers[l];
        LayerState *s = &t->state[l];
        T *x_adjoint = l ? t->state[l - 1].out_adjoint : t->lambda_x;
        EACH_TILE(t, team) {
                gate_adjoint(t, layer, &tile, s->mapped, s->out_adjoint, s->mapped_adjoint);
            map_out_adjoint(t, layer, &tile, s->mapped_adjoint, s->message_adjoint, x_adjoint);
        }
        meet(team);
        EACH_TILE(t, team) {
                clear(t, &tile, s->y_adjoint, (int64_t)layer->in * CHANNELS);
            start_sums(t, &tile);
            EACH_PATH(layer) {
                const Path *path = &layer->paths[path_index];
                couplings[path->coupling].gradients(
                    &t->pairs, tile.start, tile.stop, (int64_t)layer->in * CHANNELS, (int64_t)layer->messages * CHANNELS,
                    (int64_t)path->step * CHANNELS, FROM_BATCH(s->y, layer->in) + path->source * CHANNELS,
                    net->tables[l] + table_start(t, layer, path_index),
                    FROM_BATCH(s->message_adjoint, layer->messages) + path->message * CHANNELS,
                    FROM_BATCH(s->y_adjoint, layer->in) + path->source * CHANNELS);
            }
            add_sums(t, &tile);
            if (l) mix(t, layer, &tile, s->y_adjoint, x_adjoint, 1);
        }
        meet(team); /* message_adjoint may be the same memory in the next layer */
    }
    pull_atoms(t, team);
}

/* Turn the derivatives of each pair into forces and virial. */
static void pull_atoms(Task *t, const Team *team) {
    const Batch *b = t->batch;
    Tile tile;
    T *forces = t->fields.forces + (int64_t)t->member * b->n_atoms * 3;
    EACH_TILE(t, team) {
        for (int64_t n = tile.start; n < tile.stop; n++) {
            T own[3] = {0, 0, 0};
            for (int64_t e = b->pairs.first[n]; e < b->pairs.first[n + 1]; e++) {
                const T *slopes = t->slopes + (e - t->e0) * (HARMONICS + 1);
                const T slope = slopes[HARMONICS];
                T *pull = t->pull + 3 * (e - t->e0);
                for (int i = 0; i < 3; i++) pull[i] = slope * b->unit[3 * e + i];
                for (int k = 1; k < HARMONICS; k++) {
                    const T by = slopes[k];
                    for (int i = 0; i < 3; i++) pull[i] += by * b->jacobian[(e * HARMONICS + k) * 3 + i];
                }
                for (int i = 0; i < 3; i++) own[i] += pull[i];
            }
            for (int i = 0; i < 3; i++) forces[3 * n + i] = own[i];
        }
    }
    meet(team);
    if (team->rank == 0) {
        for (int64_t e = t->e0; e < t->e1; e++)
            for (int i = 0; i < 3; i++) forces[3 * b->pairs.neighbor[e] + i] -= t->pull[3 * (e - t->e0) + i];
        for (int64_t s = t->s0; t->fields.virial && s < t->s1; s++) {
            T *virial = t->fields.virial + ((int64_t)t->member * b->n_structures + s) * 9;
            memset(virial, 0, 9 * sizeof(T));
            for (int64_t e = b->pairs.first[b->atom_ptr[s]]; e < b->pairs.first[b->atom_ptr[s + 1]]; e++)
                for (int i = 0; i < 9; i++) virial[i] += b->vectors[3 * e + i / 3] * t->pull[3 * (e - t->e0) + i % 3];
        }
    }
    meet(team);
}

/* The displacement of each pair along which the features are differentiated. */
static void displace(Task *t, const Tile *tile, int64_t structure) {
    const Batch *b = t->batch;
    const T *by = t->fields.of_forces + (int64_t)t->member * b->n_atoms * 3;
    for (int64_t n = tile->start; n < tile->stop; n++) {
        while (n >= b->atom_ptr[structure + 1]) structure++;
        const T *strain =
            t->fields.of_virial ? t->fields.of_virial + ((int64_t)t->member * b->n_structures + structure) * 9 : NULL;
        for (int64_t e = b->pairs.first[n]; e < b->pairs.first[n + 1]; e++) {
            T move[3], along = 0;
            for (int i = 0; i < 3; i++) {
                move[i] = by[3 * n + i] - by[3 * b->pairs.neighbor[e] + i];
                for (int j = 0; strain && j < 3; j++) move[i] += strain[3 * j + i] * b->vectors[3 * e + j];
                along += move[i] * b->unit[3 * e + i];
            }
            for (int k = 0; k < 4; k++)
                t->spline_tangent[4 * (e - t->e0) + k] = along * b->pairs.spline_slope[4 * e + k];
            for (int k = 0; k < HARMONICS; k++) {
                const T *jacobian = b->jacobian + (e * HARMONICS + k) * 3;
                t->harmonics_tangent[k * t->pairs.tangent_stride + e - t->e0] =
                    jacobian[0] * move[0] + jacobian[1] * move[1] + jacobian[2] * move[2];
            }
        }
    }
}

static void tangent(Task *t, const Team *team) {
    const Network *net = t->net;
    Tile tile;
    EACH_TILE(t, team) {
        displace(t, &tile, t->s0);
        clear(t, &tile, t->tangent[0].x, CHANNELS); /* the embedding does not move */
    }
    for (int l = 0; l < net->n_layers; l++) {
        const Layer *layer = &net->layers[l];
        LayerState *s = &t->state[l];
        LayerTangent *d = &t->tangent[l];
        T *out = l + 1 < net->n_layers
                     ? t->tangent[l + 1].x
                     : t->fields.of_readout + ((int64_t)t->member * t->batch->n_atoms + t->a0) * CHANNELS;
        EACH_TILE(t, team) {
                mix(t, layer, &tile, d->x, d->y, 0);
        }
        meet(team);
        EACH_TILE(t, team) {
                clear(t, &tile, d->message, (int64_t)layer->messages * CHANNELS);
            EACH_PATH(layer) {
                const Path *path = &layer->paths[path_index];
                couplings[path->coupling].tangents(
                    &t->pairs, tile.start, tile.stop, (int64_t)layer->in * CHANNELS, (int64_t)layer->messages * CHANNELS,
                    (int64_t)path->step * CHANNELS, FROM_BATCH(s->y, layer->in) + path->source * CHANNELS,
                    FROM_BATCH(d->y, layer->in) + path->source * CHANNELS,
                    net->tables[l] + table_start(t, layer, path_index),
                    FROM_BATCH(d->message, layer->messages) + path->message * CHANNELS);
            }
            map_out(t, layer, &tile, d->message, d->x, d->mapped);
            gate_tangent(t, layer, &tile, s->mapped, d->mapped, out);
        }
    }
}

static void curvature(Task *t, const Team *team) {
    const Network *net = t->net;
    Tile tile;
    EACH_TILE(t, team) {
        const int64_t row = ((int64_t)t->member * t->batch->n_atoms + tile.start) * CHANNELS;
        memcpy(t->lambda_next + (tile.start - t->a0) * CHANNELS, t->fields.of_features + row,
               sizeof(T) * (size_t)((tile.stop - tile.start) * CHANNELS));
    }
    for (int l = net->n_layers - 1; l >= 0; l--) {
        const Layer *layer = &net->layers[l];
        LayerState *s = &t->state[l];
        LayerTangent *d = &t->tangent[l];
        EACH_TILE(t, team) {
                gate_curvature(t, layer, &tile, s->mapped, d->mapped, t->lambda_next, s->out_adjoint, t->lambda_mapped);
            map_out_gradient(t, layer, &tile, s->message, s->x, t->lambda_mapped);
            map_out_gradient(t, layer, &tile, d->message, d->x, s->mapped_adjoint);
            map_out_adjoint(t, layer, &tile, t->lambda_mapped, t->lambda_message, t->lambda_x);
        }
        meet(team);
        EACH_TILE(t, team) {
                clear(t, &tile, t->lambda_y, (int64_t)layer->in * CHANNELS);
            EACH_PATH(layer) {
                const Path *path = &layer->paths[path_index];
                couplings[path->coupling].curvatures(
                    &t->pairs, tile.start, tile.stop, (int64_t)layer->in * CHANNELS, (int64_t)layer->messages * CHANNELS,
                    (int64_t)path->step * CHANNELS, FROM_BATCH(s->y, layer->in) + path->source * CHANNELS,
                    FROM_BATCH(d->y, layer->in) + path->source * CHANNELS,
                    net->tables[l] + table_start(t, layer, path_index),
                    FROM_BATCH(t->lambda_message, layer->messages) + path->message * CHANNELS,
                    FROM_BATCH(s->message_adjoint, layer->messages) + path->message * CHANNELS,
                    FROM_BATCH(t->lambda_y, layer->in) + path->source * CHANNELS,
                    t->table_gradients[l] + (int64_t)path_index * net->n_knots * CHANNELS);
            }
            mix_gradient(t, layer, &tile, s->x, t->lambda_y);
            if (l) mix_gradient(t, layer, &tile, d->x, s->y_adjoint);
            mix(t, layer, &tile, t->lambda_y, t->lambda_x, 1);
        }
        meet(team);
        T *swap = t->lambda_x;
        t->lambda_x = t->lambda_next;
        t->lambda_next = swap;
    }
    T *embedding = t->gradients[net->n_matrices - 1];
    EACH_TILE(t, team) {
        for (int64_t a = tile.start; a < tile.stop; a++)
            for (int c = 0; c < CHANNELS; c++)
                embedding[t->batch->species[a] * CHANNELS + c] += t->lambda_next[(a - t->a0) * CHANNELS + c];
    }
    meet(team);
}
