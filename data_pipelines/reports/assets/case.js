const play=document.getElementById("play"),slide=document.getElementById("lead"),
output=document.getElementById("output");let timer=null;
function show(n){slide.value=n;output.textContent=LEADS[n];
document.querySelectorAll("img[data-frames]").forEach(i=>{i.src=FRAMES[i.dataset.frames][n]})}
function stop(){clearInterval(timer);timer=null;play.textContent="Play"}
function start(){timer=setInterval(()=>show((+slide.value+1)%LEADS.length),450);play.textContent="Pause"}
play.onclick=()=>timer?stop():start();slide.oninput=()=>{stop();show(+slide.value)};
if(KEYS)addEventListener("keydown",e=>{if(e.target!==document.body)return;
if(e.key===" "){e.preventDefault();play.click()}
const s={ArrowRight:1,ArrowLeft:-1}[e.key];if(s){stop();show((+slide.value+s+LEADS.length)%LEADS.length)}});
// paper shows one frame: the last where none was chosen, as the first has no error
addEventListener("beforeprint",()=>{stop();if(!+slide.value)show(LEADS.length-1)});show(+slide.value);
