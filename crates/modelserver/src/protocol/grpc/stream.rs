//! Many requests on one stream.
//!
//! Requests run side by side, at most [`IN_FLIGHT`] of them; while there are so many, or while the client does not
//! read, no further one is taken off the wire. Models that answer once answer in the order of their requests; what a
//! model streams comes as it is made, between the others. A request that fails says so in its answer and
//! leaves the stream as it is. Nothing is spawned here: a client that leaves drops everything that is under way.

use std::{
    collections::HashMap,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use futures::{
    FutureExt as _, StreamExt as _,
    future::BoxFuture,
    stream::{self, BoxStream, FuturesOrdered, SelectAll},
};
use prost::Message as _;
use tonic::{Status, Streaming};

use super::{
    convert,
    infer::{infer, read},
    messages::proto::{
        InferParameter, ModelInferRequest, ModelInferResponse, ModelStreamInferResponse,
        infer_parameter::ParameterChoice,
    },
    metered::Meter,
};
use crate::{
    protocol::{
        app::App,
        budget::{Hold, Refused},
    },
    run::{caller::Caller, model::Answers},
};

/// Requests of one stream that are worked on at once.
const IN_FLIGHT: usize = 64;

/// Says of each answer whether it is the last one of its request.
const FINAL: &str = "triton_final_response";

/// Asks for one more answer, without outputs, after the last one of a model that streams.
const EMPTY_FINAL: &str = "triton_enable_empty_final_response";

/// The answers of a stream.
pub(super) struct Stream {
    app: Arc<App>,
    caller: Caller,
    requests: Streaming<ModelInferRequest>,
    meter: Option<Meter>,
    /// No more requests will come; if something broke, this is what is still to be said.
    ended: Option<Option<Status>>,
    /// The server ends, and takes no more requests.
    ending: BoxFuture<'static, ()>,
    /// Answers wait here for those before them; each is counted until tonic has written it.
    single: FuturesOrdered<BoxFuture<'static, (ModelStreamInferResponse, Hold)>>,
    many: SelectAll<BoxStream<'static, ModelStreamInferResponse>>,
}

impl Stream {
    /// `meter` counts what is read of the requests.
    pub(super) fn new(
        app: Arc<App>,
        caller: Caller,
        requests: Streaming<ModelInferRequest>,
        meter: Option<Meter>,
    ) -> Self {
        let (single, many) = (FuturesOrdered::new(), SelectAll::new());
        let ending = Box::pin(app.reporter.changes().last());
        Self { app, caller, requests, meter, ended: None, ending, single, many }
    }

    fn begin(&mut self, request: ModelInferRequest) -> Result<(), Refused> {
        let hold = self.meter.as_ref().map(Meter::take).transpose()?.unwrap_or_default();
        let streams = self
            .app
            .models
            .find(&request.model_name, Some(&request.model_version))
            .is_ok_and(|(m, _)| m.signature.streams);
        let app = Arc::clone(&self.app);
        if streams {
            self.many.push(stream::once(many(app, self.caller, request, hold)).flatten().boxed());
        } else {
            self.single.push_back(Box::pin(single(app, self.caller, request, hold)));
        }
        Ok(())
    }
}

impl futures::Stream for Stream {
    type Item = Result<ModelStreamInferResponse, Status>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        if this.ended.is_none() && this.ending.poll_unpin(context).is_ready() {
            this.ended = Some(Some(Status::unavailable("the server is ending: open a stream elsewhere")));
        }
        while this.ended.is_none() && this.single.len() + this.many.len() < IN_FLIGHT {
            match this.requests.poll_next_unpin(context) {
                Poll::Ready(Some(Ok(request))) => {
                    if let Err(refused) = this.begin(request) {
                        this.ended = Some(Some(refused.into()));
                    }
                }
                Poll::Ready(Some(Err(status))) => this.ended = Some(Some(status)),
                Poll::Ready(None) => this.ended = Some(None),
                Poll::Pending => break,
            }
        }
        if let Poll::Ready(Some((answer, _counted))) = this.single.poll_next_unpin(context) {
            return Poll::Ready(Some(Ok(answer)));
        }
        if let Poll::Ready(Some(answer)) = this.many.poll_next_unpin(context) {
            return Poll::Ready(Some(Ok(answer)));
        }
        match &mut this.ended {
            Some(broken) if this.single.is_empty() && this.many.is_empty() => Poll::Ready(broken.take().map(Err)),
            Some(_) | None => Poll::Pending,
        }
    }
}

/// The answer of a model that answers once.
async fn single(
    app: Arc<App>,
    caller: Caller,
    request: ModelInferRequest,
    taken: Hold,
) -> (ModelStreamInferResponse, Hold) {
    let id = request.id.clone();
    let answer = match infer(&app, caller, request).await {
        Ok((answer, _)) => answer,
        Err(error) => return (failed(id, &error.to_string()), Hold::default()),
    };
    drop(taken);
    let mut hold = Hold::default();
    match app.budget.cover(&mut hold, answer.encoded_len()) {
        Ok(()) => (said(answer, true), hold),
        Err(spent) => (failed(id, &spent.to_string()), hold),
    }
}

/// What is under way for a request to a model that streams.
struct Asked {
    name: String,
    version: String,
    id: String,
    raw: bool,
    empty_final: bool,
    answers: Option<Answers>,
    _hold: Hold,
}

/// The answers of a model that streams.
async fn many(
    app: Arc<App>,
    caller: Caller,
    mut request: ModelInferRequest,
    hold: Hold,
) -> BoxStream<'static, ModelStreamInferResponse> {
    let mut asked = Asked {
        name: std::mem::take(&mut request.model_name),
        version: String::new(),
        id: request.id.clone(),
        raw: !request.raw_input_contents.is_empty(),
        empty_final: is_true(request.parameters.remove(EMPTY_FINAL)),
        answers: None,
        _hold: hold,
    };
    let begun = async {
        let (model, _) = app.models.find(&asked.name, Some(&request.model_version))?;
        asked.version.clone_from(&model.version);
        model.stream(read(&model, request)?, caller).await
    };
    match begun.await {
        Ok(answers) => asked.answers = Some(answers),
        Err(error) => return stream::iter([failed(asked.id, &error.to_string())]).boxed(),
    }
    stream::unfold(asked, |mut asked| async {
        let answer = asked.answers.as_mut()?.next().await;
        let answer = match answer {
            Some(Ok(outputs)) => said(asked.answer(outputs), false),
            Some(Err(error)) => {
                asked.answers = None;
                failed(asked.id.clone(), &error.to_string())
            }
            None => {
                asked.answers = None;
                if !asked.empty_final {
                    return None;
                }
                said(asked.answer(Vec::new()), true)
            }
        };
        Some((answer, asked))
    })
    .boxed()
}

impl Asked {
    fn answer(&self, outputs: Vec<inference::Tensor>) -> ModelInferResponse {
        let response = inference::Response {
            model_name: self.name.clone(),
            model_version: Some(self.version.clone()),
            id: Some(self.id.clone()),
            parameters: Default::default(),
            outputs,
        };
        convert::response(response, self.raw)
    }
}

fn is_true(parameter: Option<InferParameter>) -> bool {
    parameter.is_some_and(|parameter| parameter.parameter_choice == Some(ParameterChoice::BoolParam(true)))
}

fn said(mut answer: ModelInferResponse, last: bool) -> ModelStreamInferResponse {
    let last = InferParameter { parameter_choice: Some(ParameterChoice::BoolParam(last)) };
    answer.parameters.insert(FINAL.to_owned(), last);
    ModelStreamInferResponse { error_message: String::new(), infer_response: Some(answer) }
}

fn failed(id: String, reason: &str) -> ModelStreamInferResponse {
    let last = InferParameter { parameter_choice: Some(ParameterChoice::BoolParam(true)) };
    let parameters = HashMap::from([(FINAL.to_owned(), last)]);
    let answer = ModelInferResponse { id, parameters, ..ModelInferResponse::default() };
    ModelStreamInferResponse { error_message: reason.to_owned(), infer_response: Some(answer) }
}
