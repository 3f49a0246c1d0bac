addEventListener("beforeprint",()=>document.querySelectorAll("details").forEach(d=>{
d.dataset.shut=d.open?"":"1";d.open=true}));
addEventListener("afterprint",()=>document.querySelectorAll("details").forEach(d=>{if(d.dataset.shut)d.open=false}));
const wide=document.querySelectorAll(".wide"),
more=w=>w.classList.toggle("more",w.scrollWidth-w.clientWidth-w.scrollLeft>2),every=()=>wide.forEach(more);
wide.forEach(w=>w.addEventListener("scroll",()=>more(w),{passive:true}));
document.querySelectorAll("details").forEach(d=>d.addEventListener("toggle",every));
addEventListener("resize",every);every();
